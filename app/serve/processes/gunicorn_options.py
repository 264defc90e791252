"""Options of Gunicorn that this server cannot serve with, whoever gave them: command line, environment, file.

Asked by the master once, when Gunicorn has put its configuration together.
"""

from __future__ import annotations

from typing import Any

from app.core.errors import SettingsError
from app.core.settings import Settings

OUR_WORKER = "app.serve.worker.ForkliftWorker"
# Gunicorn's own classes that run the application in threads of a worker, with limits that are documented.
WORKER_CLASSES = (OUR_WORKER, "sync", "gthread", "gunicorn.workers.gthread.ThreadWorker")
# Heartbeats come once a second.
SHORTEST_TIMEOUT_S = 5


def check_options(cfg: Any, settings: Settings) -> None:
    """Raise ``SettingsError`` with one line for the first option in ``cfg`` that breaks the server."""
    if cfg.preload_app:
        raise _refused("--preload", "each worker loads the model on its own inference thread")
    if cfg.reload:
        raise _refused("--reload", "a worker that is replaced loads its model anew; restart the server instead")
    if cfg.max_requests or cfg.max_requests_jitter:
        raise _refused("--max-requests", "a worker that is replaced loads its model anew, and none leaks memory")
    if cfg.settings["worker_class"].get() not in _classes():
        name = cfg.settings["worker_class"].get()
        raise _refused(f"--worker-class {name}", "use Forklift's own, the default, or sync or gthread")
    if cfg.workers < 1:
        raise _refused("--workers 0", "set FORKLIFT_WORKERS")
    if 0 < cfg.timeout < SHORTEST_TIMEOUT_S:
        raise _refused(f"--timeout {cfg.timeout}", f"it is the limit for heartbeats, at least {SHORTEST_TIMEOUT_S} s")
    _check_threads(cfg, settings)
    _check_tls(cfg, settings)


def _classes() -> tuple[object, ...]:
    from app.serve.worker import ForkliftWorker

    return (*WORKER_CLASSES, ForkliftWorker)


def _check_threads(cfg: Any, settings: Settings) -> None:
    """Fewer threads than places would let requests that were admitted wait for each other."""
    if cfg.worker_class_str == OUR_WORKER and cfg.threads < settings.num_http_threads:
        raise _refused(f"--threads {cfg.threads}", "set FORKLIFT_HTTP_THREADS, MAX_BATCH_SIZE or MAX_QUEUE")


def _check_tls(cfg: Any, settings: Settings) -> None:
    if (cfg.certfile, cfg.keyfile) != (settings.tls_cert, settings.tls_key):
        raise _refused("--certfile and --keyfile", "set FORKLIFT_TLS_CERT and FORKLIFT_TLS_KEY")
    if "h2" in cfg.http_protocols:
        raise _refused("--http-protocols h2", "HTTP/1.1 is what is spoken here")
    if cfg.protocol != "http":
        raise _refused(f"--protocol {cfg.protocol}", "HTTP/1.1 is what is spoken here")


def _refused(option: str, reason: str) -> SettingsError:
    return SettingsError(f"gunicorn's option {option} is not possible here: {reason}")
