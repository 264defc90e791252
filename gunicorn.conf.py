"""Gunicorn's configuration: every value comes from the settings, every hook from ``app.serve``.

Executed by the master at the start and again at HUP. Imports neither torch nor the application.
"""

# A name without an underscore would be taken for a setting of Gunicorn.
from typing import Any as _Any

from app.models.folder.early import check_models as _check_models
from app.serve import hooks
from app.serve.connections import tls as _tls
from app.serve.processes import preparation as _preparation

_plan = _preparation.prepare(check_models=_check_models)
_settings = _plan.settings

bind = list(_settings.addresses)
certfile = _settings.tls_cert
keyfile = _settings.tls_key
ssl_context = _tls.make_context
workers = len(_plan.gpus)
worker_class = "app.serve.worker.ForkliftWorker"
threads = _settings.num_http_threads
# Heartbeats come from the main thread; with `-k sync` that thread runs requests, none longer than this.
timeout = int(_settings.request_timeout_s) + 30
# The master kills after this; a worker needs the drain and a moment to write its last answers.
graceful_timeout = int(_settings.drain_timeout_s) + 5
# A kept connection would pin its client to one worker.
keepalive = 0
max_requests = 0
preload_app = False
reload = False
# Heartbeat files on a disk stall with it.
worker_tmp_dir = hooks.heartbeat_folder()
http_parser = "python"
# A header SCRIPT_NAME or PATH_INFO would be taken for the path, from whoever is on this machine; see PATH_PREFIX.
forwarder_headers = ""
control_socket_disable = True
logger_class = "app.serve.gunicorn_logger.PropagatingLogger"
# The application logs one line per request.
accesslog = None

on_starting = hooks.on_starting
when_ready = hooks.when_ready
pre_fork = hooks.pre_fork
child_exit = hooks.child_exit
worker_int = hooks.worker_int
worker_exit = hooks.worker_exit
on_exit = hooks.on_exit


def post_fork(server: _Any, worker: _Any) -> None:
    from app.engine.thread.inference import make_inference

    hooks.post_fork(server, worker, make_inference)


def post_worker_init(worker: _Any) -> None:
    if not _settings.grpc_bind:
        hooks.post_worker_init(worker)
        return
    # Not in the master: gRPC's threads do not survive a fork.
    from app.rpc.door import open_door

    hooks.post_worker_init(worker, open_door)
