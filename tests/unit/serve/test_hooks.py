from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from prometheus_client import values

from app.core.metrics import Metrics
from app.core.settings import Settings
from app.serve import context, hooks
from app.serve.board.metrics_folder import FOLDER
from app.serve.processes import preparation, startup

# What a worker writes to its environment before torch is imported.
SET_BY_WORKERS = (
    "CUDA_VISIBLE_DEVICES",
    "OMP_NUM_THREADS",
    "GOMP_SPINCOUNT",
    "TOKENIZERS_PARALLELISM",
    "HF_HUB_OFFLINE",
)


class Inference:
    kv_cache_max_bytes = 0

    def __init__(self, settings: Settings, slot: int, on_state: startup.OnState, _metrics: Metrics):
        self.slot = slot
        self.on_state = on_state
        self.starts: list[str | None] = []

    def start(self) -> None:
        self.starts.append(os.environ.get("CUDA_VISIBLE_DEVICES"))
        self.on_state("loading", 0.5)

    def drain(self) -> None: ...
    def cancel_all(self, error: object) -> None: ...
    def load_failure(self) -> None: ...
    def defect(self) -> None: ...


@pytest.fixture
def master(monkeypatch):
    """A master with two slots, in this process; yields its board."""
    environ = {"CUDA_VISIBLE_DEVICES": "a,b", "FORKLIFT_DEVICE": "cpu"}
    monkeypatch.setattr(preparation, "_plan", None)
    monkeypatch.setattr(hooks, "_board", None)
    monkeypatch.setattr(context, "_current", None)
    monkeypatch.setattr(preparation, "configure_logging", lambda _format, **_options: None)
    for name in (*SET_BY_WORKERS, FOLDER):
        monkeypatch.setenv(name, "")
    handlers = {number: signal.getsignal(number) for number in hooks._STOP_SIGNALS}
    preparation.prepare(environ)
    hooks.on_starting(SimpleNamespace(cfg=SimpleNamespace(workers=2)))
    yield hooks._the_board()
    values.close_all_multiprocess_files()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def new_worker(pid: int = 7) -> SimpleNamespace:
    worker = SimpleNamespace(pid=pid)
    hooks.pre_fork(None, worker)
    return worker


def server_with(*signals: int) -> SimpleNamespace:
    pending: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in signals:
        pending.put(number)
    return SimpleNamespace(SIG_QUEUE=pending)


def test_the_next_worker_gets_the_dead_ones_slot(master):
    first, second = new_worker(), new_worker()
    hooks.child_exit(None, first)
    assert (second.forklift_slot, new_worker().forklift_slot) == (1, 0)


def test_post_fork_binds_the_slot_and_starts_loading(master):
    new_worker()
    worker = new_worker()
    hooks.post_fork(server_with(signal.SIGCHLD), worker, Inference)
    inference = context.current().inference
    assert inference.starts == ["b"]
    row = master.rows()[1]
    assert (row.pid, row.state, row.progress) == (os.getpid(), "loading", 0.5)


def test_a_stop_signal_before_the_workers_own_handlers_is_not_lost(master):
    with pytest.raises(SystemExit) as ending:
        hooks.post_fork(server_with(signal.SIGTERM), new_worker(), Inference)
    assert ending.value.code == 0
    with pytest.raises(SystemExit):
        signal.raise_signal(signal.SIGTERM)


def test_fast_deaths_are_counted_and_a_long_life_forgets_them(master):
    for expected in (1, 2, 3):
        worker = new_worker()
        master.set_state(0, "ready")
        hooks.child_exit(None, worker)
        assert master.num_fast_deaths(0) == expected
    worker = new_worker()
    master.set_state(0, "ready")
    worker.forklift_started_s -= 1000
    hooks.child_exit(None, worker)
    assert master.num_fast_deaths(0) == 0


def test_a_worker_that_was_told_to_stop_did_not_die_young(master):
    worker = new_worker()
    master.set_state(0, "draining")
    hooks.child_exit(None, worker)
    assert master.num_fast_deaths(0) == 0


def test_a_worker_that_never_finished_loading_died_of_it_however_long_it_took(master):
    worker = new_worker()
    worker.forklift_started_s -= 1000
    hooks.child_exit(None, worker)
    assert master.num_fast_deaths(0) == 1


def test_the_pause_before_a_load_grows_to_its_bound():
    pauses = [startup.pause_before_load_s(deaths) for deaths in (0, 1, 2, 3, 4, 50)]
    assert pauses == [0.0, 0.0, 1.0, 2.0, 4.0, 60.0]


def test_a_worker_born_without_a_slot_starts_when_one_is_free(master, monkeypatch):
    monkeypatch.setattr(startup, "SLOT_POLL_S", 0.01)
    first = new_worker()
    new_worker()
    late = new_worker(os.getpid())
    assert late.forklift_slot is None
    hooks.post_fork(server_with(), late, Inference)
    own = context.current()
    assert own.slot is None
    assert own.inference.starts == []
    hooks.child_exit(None, first)
    deadline = startup.time.monotonic() + 10
    while not own.inference.starts and startup.time.monotonic() < deadline:
        startup.time.sleep(0.01)
    assert (own.slot, own.admission.slot, own.inference.starts) == (0, 0, ["a"])
    assert master.rows()[0].pid == os.getpid()
    hooks.child_exit(None, late)
    assert master.rows()[0].pid is None


def test_the_development_server_is_its_own_slot(monkeypatch):
    for name in SET_BY_WORKERS:
        monkeypatch.setenv(name, "")
    own = startup.start_single(Settings(device="cpu"), Inference)
    assert own.slot == 0
    assert own.board.rows()[0].pid == os.getpid()


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("FORKLIFT_WORKRES", "2", "did you mean FORKLIFT_WORKERS?"),
        ("FORKLIFT_WORKERS", "many", "FORKLIFT_WORKERS"),
        ("FORKLIFT_DEVICE", "cuda", "no GPU was found"),
    ],
)
def test_a_wrong_setting_stops_the_start_with_one_line(name, value, text):
    environ = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "", name: value}
    run = subprocess.run([sys.executable, "-m", "gunicorn", "wsgi:app"], env=environ, capture_output=True, text=True)
    assert run.returncode == 3
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("forklift: ")
    assert text in run.stderr


def test_what_the_master_imports_contains_neither_torch_nor_flask():
    code = "import sys, app.serve.hooks, app.serve.worker, app.serve.gunicorn_logger; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "transformers", "flask", "numpy", "tokenizers"} & set(run.stdout.split())
