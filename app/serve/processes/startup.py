"""How one worker comes to life: its slot, its GPUs, its inference thread.

Runs in a new worker's ``post_fork``, or in the development server. Knows the engine only as the
factory it is given.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.core.states import OnState, WorkerState
from app.core.system.adapter_folders import adapters_at_start
from app.serve.board.adapter_list import AdapterList
from app.serve.board.admission import Admission
from app.serve.board.metrics_folder import FOLDER, reserve_files, slot_identity
from app.serve.board.slot_board import SlotBoard
from app.serve.context import WorkerContext
from app.serve.processes.gpus import bind, plan_slots

if TYPE_CHECKING:
    from app.core.metrics import Metrics
    from app.engine.thread.inference import Inference

MakeInference: TypeAlias = "Callable[[Settings, int, OnState, Metrics], Inference]"

SLOT_POLL_S = 0.2
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0

log = get_logger("serve")


def start_worker(
    settings: Settings,
    board: SlotBoard,
    slot: int | None,
    make_inference: MakeInference,
    adapters: AdapterList | None = None,
) -> WorkerContext:
    """Make this process's context and start loading.

    A worker without a slot (HUP starts new workers before the old ones stop), or one whose
    predecessors died young, starts loading later, on a thread; until then it is up and not ready.
    """
    from app.core.metrics import Metrics

    admission = Admission(settings, board, slot)

    def on_state(state: WorkerState, progress: float) -> None:
        if admission.slot is not None:
            if state == "ready":
                board.set_kv_cache_max_bytes(admission.slot, inference.kv_cache_max_bytes)
            board.set_state(admission.slot, state, progress)

    def identity() -> str:
        return f"pid{os.getpid()}" if admission.slot is None else slot_identity(admission.slot)

    if slot is None and (folder := os.environ.get(FOLDER)):
        reserve_files(Path(folder), identity())
    metrics = Metrics(identity)
    inference = make_inference(settings, -1 if slot is None else slot, on_state, metrics)
    context = WorkerContext(settings, slot, board, admission, inference, metrics, adapters)
    pause_s = 0.0 if slot is None else pause_before_load_s(board.num_fast_deaths(slot))
    if slot is None or pause_s:
        threading.Thread(target=_start_late, args=(context, pause_s), name="late-start", daemon=True).start()
    else:
        _start_now(context, slot)
    return context


def start_single(settings: Settings, make_inference: MakeInference) -> WorkerContext:
    """The context of a server of one process, which is its own slot 0 (the development server)."""
    board = SlotBoard(plan_slots(settings, os.environ)[:1])
    return start_worker(settings, board, board.lease(os.getpid()), make_inference, make_adapters(settings, board))


def make_adapters(settings: Settings, board: SlotBoard) -> AdapterList | None:
    """The adapters that are in service from the start; None where no model takes any. Raises ``StartError``."""
    takes_any = any(plan.settings.adapters is not None for plan in settings.plans)
    return AdapterList(board, adapters_at_start(settings)) if takes_any else None


def pause_before_load_s(num_fast_deaths: int) -> float:
    """Seconds before the next load: none after one fast death, then doubling."""
    if num_fast_deaths < 2:
        return 0.0
    return min(FIRST_PAUSE_S * 2.0 ** min(num_fast_deaths - 2, 16), LONGEST_PAUSE_S)


def _start_late(context: WorkerContext, pause_s: float) -> None:
    slot = context.slot
    if slot is None:
        slot = _wait_for_slot(context.board)
        context.slot = context.admission.slot = slot
        log.info("slot_taken", slot=slot)
    if pause_s:
        log.warning("load_postponed", slot=slot, pause_s=pause_s, reason="workers of this slot died young")
        time.sleep(pause_s)
    _start_now(context, slot)


def _wait_for_slot(board: SlotBoard) -> int:
    while (slot := board.lease(os.getpid())) is None:
        time.sleep(SLOT_POLL_S)
    return slot


def _start_now(context: WorkerContext, slot: int) -> None:
    bind(context.settings, context.board.gpus[slot], len(context.board))
    context.inference.start()
