"""Bodies of Gunicorn's hooks. The master owns the slot board and never imports the engine.

Which process runs what: ``on_starting``, ``when_ready``, ``pre_fork``, ``child_exit`` and ``on_exit`` the master;
``post_fork``, ``post_worker_init``, ``worker_int`` and ``worker_exit`` a worker. What must outlive
a reload (HUP executes the configuration file anew) lies in this module.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from queue import Empty
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeAlias

from gunicorn.errors import HaltServer

from app.core.errors import StartError, shutting_down
from app.core.logs.logging import get_logger
from app.core.system.load_marks import LoadMarks, marks, set_marks
from app.serve.board.adapter_list import AdapterList
from app.serve.board.metrics_folder import make_metrics_folder, remove_orphaned
from app.serve.board.shared_files import heartbeat_folder as heartbeat_folder
from app.serve.board.slot_board import SlotBoard
from app.serve.context import Door, WorkerContext, current, set_current
from app.serve.processes import preparation
from app.serve.processes.farewell import Farewell
from app.serve.processes.startup import MakeInference, make_adapters, pause_before_load_s, start_worker
from app.serve.processes.terminal import leave_terminal
from app.serve.processes.watch import STOP_THE_SERVER, Watch, leave
from app.serve.registry.registration import Registration

if TYPE_CHECKING:
    from app.serve.registry.registrar import Registrar

# So many in a row, before any worker was ever ready, and the next one would die as well.
HOPELESS_DEATHS = 6
# A worker that lives shorter than this died of its start.
FAST_DEATH_S = 10.0
OpenDoor: TypeAlias = Callable[[WorkerContext], Door]
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)

log = get_logger("serve")


_board: SlotBoard | None = None
_registration: Registration | None = None
_registrar: Registrar | None = None
_adapters: AdapterList | None = None
_farewell = Farewell()


def is_only_checking() -> bool:
    """Whether the application is asked for by ``gunicorn --check-config`` or ``--print-config``: in the master.

    ``--preload``, which asks for it there as well, was refused before.
    """
    return preparation.is_prepared() and _board is None


# master


def on_starting(server: Any) -> None:
    """Make what all workers inherit: the board, and a folder for metrics."""
    global _board, _adapters, _registration
    plan = preparation.prepare()
    try:
        make_metrics_folder(len(plan.gpus))
        _board = SlotBoard(plan.gpus)
        _adapters = make_adapters(plan.settings, _board)
        _registration = Registration() if plan.settings.registry else None
    except StartError as error:
        preparation.refuse_start(error)
    # At HUP the new workers come before the old ones go; with one to spare for a death meanwhile.
    set_marks(LoadMarks(2 * max(len(plan.gpus), server.cfg.workers) + 1, len(plan.settings.plans)))
    if server.cfg.workers > len(plan.gpus):
        log.warning("workers_without_slot", workers=server.cfg.workers, slots=len(plan.gpus))


def when_ready(server: Any) -> None:
    """The listeners are open: keep them to the very end."""
    _farewell.hold(server.LISTENERS)


def on_exit(server: Any) -> None:
    """All workers have ended: answer those whom none has taken."""
    _farewell.say(server.cfg, preparation.prepare().settings.max_body_bytes)


def pre_fork(_server: Any, worker: Any) -> None:
    """Lease the lowest free slot; None where all are taken."""
    worker.forklift_slot = _the_board().lease()
    worker.forklift_started_s = time.monotonic()
    if (load_marks := marks()) is not None:
        worker.forklift_load_row = load_marks.bear()


def child_exit(_server: Any, worker: Any) -> None:
    """Free the dead worker's slot, clear its counters, and remember a fast death."""
    board = _the_board()
    slot = worker.forklift_slot
    if slot is None:
        slot = board.slot_of(worker.pid)
    _note_end_of_loads(worker, slot)
    if slot is None:
        return
    num_fast_deaths = board.count_death(slot, _is_fast_death(worker, slot))
    board.free(slot)
    if num_fast_deaths > 1:
        log.warning("worker_died_young", slot=slot, pid=worker.pid, num_fast_deaths=num_fast_deaths)
    if num_fast_deaths >= HOPELESS_DEATHS and not board.was_ever_ready:
        print(f"forklift: {_hopeless(num_fast_deaths)}", file=sys.stderr)
        raise HaltServer("no worker lives", STOP_THE_SERVER)


def _note_end_of_loads(worker: Any, slot: int | None) -> None:
    row = getattr(worker, "forklift_load_row", None)
    if row is not None and (load_marks := marks()) is not None:
        was_draining = slot is not None and _the_board().rows()[slot].state == "draining"
        load_marks.note_end(row, was_told_to=was_draining)


def _hopeless(num_deaths: int) -> StartError:
    return StartError(
        f"{num_deaths} workers died one after the other, and none was ever ready: see the log above "
        "(SIGKILL mostly means that there is not enough memory)"
    )


def _is_fast_death(worker: Any, slot: int) -> bool:
    board = _the_board()
    state = board.rows()[slot].state
    if state == "draining":
        return False
    limit_s = FAST_DEATH_S + pause_before_load_s(board.num_fast_deaths(slot))
    return state == "loading" or time.monotonic() - worker.forklift_started_s < limit_s


# worker


def post_fork(server: Any, worker: Any, make_inference: MakeInference) -> None:
    """Bind this worker to its slot and start its inference thread; returns at once."""
    _obey_stop_signals(server)
    _farewell.forget()
    leave_terminal()
    board = _the_board()
    if worker.forklift_slot is not None:
        board.set_pid(worker.forklift_slot, os.getpid())
    context = start_worker(preparation.prepare().settings, board, worker.forklift_slot, make_inference, _adapters)
    context.registration = _registration
    set_current(context)


def post_worker_init(worker: Any, open_door: OpenDoor | None = None) -> None:
    """The application is loaded: start the watch, open the other door where there is one, and tell the registry."""
    from app.serve.worker import ForkliftWorker

    is_ours = isinstance(worker, ForkliftWorker)
    Watch(current(), None if is_ours else lambda: not worker.alive).start()
    if open_door is not None:
        current().door = open_door(current())
    _announce(worker)


def _announce(worker: Any) -> None:
    global _registrar
    if _registration is not None:
        from app.serve.registry.announcing import begin

        _registrar = begin(current(), _registration, [sock.getsockname() for sock in worker.sockets])


def worker_int(_worker: Any) -> None:
    """SIGINT or SIGQUIT in one of Gunicorn's own worker classes: cancel everything.

    On a thread: this runs in a signal handler, and the thread below may hold any lock.
    """
    threading.Thread(target=current().inference.cancel_all, args=(shutting_down(),), daemon=True).start()


def worker_exit(server: Any, worker: Any) -> None:
    """The end of a worker process. Gunicorn also calls this in the master, for a worker it lost."""
    if os.getpid() != worker.pid:
        child_exit(server, worker)
        return
    if os.getppid() != worker.ppid:
        remove_orphaned()
    if _registrar is not None:
        _registrar.stop()
    ending = sys.exc_info()[1]
    code = ending.code if isinstance(ending, SystemExit) else 1
    leave(code if isinstance(code, int) else int(code is not None))


def _the_board() -> SlotBoard:
    if _board is None:
        raise RuntimeError("the slot board is made by on_starting: use gunicorn.conf.py")
    return _board


def _obey_stop_signals(server: Any) -> None:
    """Until the worker installs its handlers, the master's are in place and swallow the signal."""
    for number in _STOP_SIGNALS:
        signal.signal(number, _exit_now)
    while True:
        try:
            if server.SIG_QUEUE.get_nowait() in _STOP_SIGNALS:
                sys.exit(0)
        except Empty:
            return


def _exit_now(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)
