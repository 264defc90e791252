"""What of Gunicorn's inside this room builds on; a change there must be read before it is used."""

from __future__ import annotations

import hashlib
import inspect
import runpy
from pathlib import Path

import gunicorn
import pytest
from gunicorn.arbiter import Arbiter
from gunicorn.config import KNOWN_SETTINGS
from gunicorn.glogging import Logger
from gunicorn.http.unreader import IterUnreader
from gunicorn.workers.base import Worker
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.serve.gunicorn_logger import PropagatingLogger
from app.serve.processes import preparation
from app.serve.worker import ForkliftWorker

READ_VERSION = "27.0.1"
# The start of the SHA-256 of each source, as read when the code that relies on it was written.
READ_SOURCES = {
    "ThreadWorker.__init__": "5681b8b542ea91bf",
    "ThreadWorker.init_process": "e4fc63a1a68e4f48",
    "ThreadWorker.run": "f92c7394d85715a4",
    "ThreadWorker.accept": "f8dcead3dce5c851",
    "ThreadWorker.handle": "ca85c9be3df75da4",
    "ThreadWorker.handle_request": "6d0de5b919102efc",
    "ThreadWorker.handle_exit": "b4e7decd4f9203ac",
    "ThreadWorker.handle_quit": "36bd35a8dae5d2b5",
    "ThreadWorker.enqueue_req": "c9f428953d24acef",
    "ThreadWorker.set_accept_enabled": "140150ebfd3cae34",
    "ThreadWorker.wait_for_and_dispatch_events": "ea969b352482bd5c",
    "ThreadWorker.murder_pending": "7bf11f46454296e1",
    "ThreadWorker.is_parent_alive": "3517612f7763cc47",
    "Worker.handle_error": "75426448389bbac9",
    "Worker.init_process": "114caccd7a0e3c21",
    "Worker.init_signals": "65442e0602b05f37",
    "TConn.__init__": "c8763d7c65974e1b",
    "TConn.init": "5ff3d4ba451cfdf3",
    "IterUnreader.chunk": "4aebaa160261910c",
    "Logger.setup": "17c79acdddea07c6",
    "Arbiter.spawn_worker": "6abc0d90b0b9f80b",
    "Arbiter.reap_workers": "ebcf4187e9ebf378",
    "Arbiter.kill_worker": "47e1a8ccdca2b567",
}
OVERRIDDEN = {
    ForkliftWorker: {
        "__init__", "run", "accept", "handle", "handle_error", "handle_quit",
        "get_thread_pool",
    },
    PropagatingLogger: {"setup"},
}  # fmt: skip
USED = [
    ThreadWorker.__init__,
    ThreadWorker.init_process,
    ThreadWorker.run,
    ThreadWorker.accept,
    ThreadWorker.handle,
    ThreadWorker.handle_request,
    ThreadWorker.handle_exit,
    ThreadWorker.handle_quit,
    ThreadWorker.enqueue_req,
    ThreadWorker.set_accept_enabled,
    ThreadWorker.wait_for_and_dispatch_events,
    ThreadWorker.murder_pending,
    ThreadWorker.is_parent_alive,
    Worker.handle_error,
    Worker.init_process,
    Worker.init_signals,
    TConn.__init__,
    TConn.init,
    IterUnreader.chunk,
    Logger.setup,
    Arbiter.spawn_worker,
    Arbiter.reap_workers,
    Arbiter.kill_worker,
]


@pytest.mark.skipif(gunicorn.__version__ != READ_VERSION, reason=f"the hashes are those of gunicorn {READ_VERSION}")
def test_the_constrained_version_has_the_sources_that_were_read():
    found = {use.__qualname__: hashlib.sha256(inspect.getsource(use).encode()).hexdigest()[:16] for use in USED}
    assert found == READ_SOURCES


@pytest.mark.parametrize("ours", OVERRIDDEN)
def test_every_overridden_method_is_listed_and_keeps_its_signature(ours):
    theirs = ours.__mro__[1]
    shared = {name for name in vars(ours) if callable(vars(ours)[name]) and hasattr(theirs, name)}
    assert shared - {"__annotations__"} == OVERRIDDEN[ours]
    for name in shared - {"__init__"}:
        own, base = (list(inspect.signature(getattr(kind, name)).parameters) for kind in (ours, theirs))
        assert own == base, name


def test_our_own_names_hide_none_of_gunicorns():
    ours = {name for name in vars(ForkliftWorker) if name.startswith("_") and not name.startswith("__")}
    assert not ours & {name for kind in ForkliftWorker.__mro__[1:-1] for name in vars(kind)}


def test_every_name_in_the_configuration_file_is_a_setting_of_gunicorn(monkeypatch):
    monkeypatch.setenv("FORKLIFT_DEVICE", "cpu")
    monkeypatch.setattr(preparation, "_plan", None)
    monkeypatch.setattr(preparation, "configure_logging", lambda _format, **_options: None)
    configuration = runpy.run_path(str(Path(__file__).parents[3] / "gunicorn.conf.py"))
    known = {setting.name for setting in KNOWN_SETTINGS}
    values = {name for name in configuration if not name.startswith("_")} - {"hooks"}
    assert values <= known
    assert configuration["keepalive"] == 0
    assert configuration["preload_app"] is False
    assert configuration["graceful_timeout"] > 30
