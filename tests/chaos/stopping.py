"""A worker that stops (SIGSTOP) while it holds the board's lock, when a test orders it, and is let go on later."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Any

from app.serve.board.slot_board import BoardEntry, SlotBoard

STOPPED_SLOT = 0
# Shorter and longer than a silent worker is still waited for.
STOPS_S = (0.5, 1.5, 4.0)
RUNS_S = 0.5
LOOK_S = 0.005


def obey(order: Path) -> None:
    """In a worker: stop inside the lock as soon as ``order`` holds this process's id."""
    locked = SlotBoard.locked

    @contextmanager
    def stopping(board: SlotBoard) -> Iterator[list[BoardEntry]]:
        with locked(board) as rows:
            if order.exists() and order.read_text() == str(os.getpid()):
                order.unlink()
                # To this thread, or it may have left the lock before another one has taken the signal.
                signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
            yield rows

    SlotBoard.locked = stopping  # type: ignore[method-assign]


async def stop_in_turn(port: int, end_s: float) -> dict[str, Any]:
    """Until ``end_s``: how often the worker was stopped, and how often it had the lock then."""
    pid, order = await asyncio.to_thread(_victim, port), Path(os.environ["STOP_FILE"])
    num_stops = num_locked = 0
    try:
        for rest_s in cycle(STOPS_S):
            _give(order, pid)
            if not await _has_stopped(pid, end_s):
                break
            num_stops, num_locked = num_stops + 1, num_locked + _has_lock(pid)
            await asyncio.sleep(rest_s)
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(RUNS_S)
    finally:
        order.unlink(missing_ok=True)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    return {"num_stops": num_stops, "num_locked": num_locked}


def _victim(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/readyz")
    pid = json.loads(connection.getresponse().read())["slots"][STOPPED_SLOT]["pid"]
    connection.close()
    return int(pid)


def _give(order: Path, pid: int) -> None:
    new = order.with_suffix(".new")
    new.write_text(str(pid))
    new.replace(order)


async def _has_stopped(pid: int, end_s: float) -> bool:
    while time.monotonic() < end_s:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T":
            return True
        await asyncio.sleep(LOOK_S)
    return False


def _has_lock(pid: int) -> bool:
    """Whether the kernel says so: the board's is the only lock of this kind in a worker."""
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return any("POSIX" in line and str(pid) in line for line in lines)
