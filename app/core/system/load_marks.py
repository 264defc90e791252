"""Remembers which loads on demand ended their process, in memory that all processes of a server share.

A load that the kernel kills (out of memory), or that crashes in native code, leaves nobody who could remember it: the
next worker would try again at the next request, and take every stream with it each time. So a worker marks a load
before it begins, and the master, which sees the death, counts it. Made by the master; any process, no lock: a row
belongs to one worker at a time, and only the master counts.
"""

from __future__ import annotations

import ctypes
import mmap
import time

# A new worker is up again after some ten seconds.
FIRST_PAUSE_S = 30.0
LONGEST_PAUSE_S = 3600.0
# So much longer after each further death.
GROWTH = 4.0


class _Model(ctypes.Structure):
    num_deaths: int
    until_s: float

    _fields_ = [("num_deaths", ctypes.c_uint32), ("until_s", ctypes.c_double)]


class LoadMarks:
    """For ``num_workers`` processes at most at a time; models by their place in the settings."""

    def __init__(self, num_workers: int, num_models: int):
        rows_bytes = num_workers * ctypes.sizeof(ctypes.c_uint32)
        shared = mmap.mmap(-1, num_models * ctypes.sizeof(_Model) + rows_bytes)
        self._models = list((_Model * num_models).from_buffer(shared))
        # What each worker loads: the model's place and 1, or 0.
        self._loading = (ctypes.c_uint32 * num_workers).from_buffer(shared, num_models * ctypes.sizeof(_Model))
        self._taken: set[int] = set()
        self._own = 0

    # master

    def bear(self) -> int:
        """The row of the worker that is forked next; the process that is born knows it as its own."""
        self._own = next(row for row in range(len(self._loading)) if row not in self._taken)
        self._taken.add(self._own)
        self._loading[self._own] = 0
        return self._own

    def note_end(self, row: int, *, was_told_to: bool) -> None:
        """The worker of ``row`` has ended; where it was loading and nobody told it to end, that is one death more."""
        place, self._loading[row] = self._loading[row], 0
        self._taken.discard(row)
        if place and not was_told_to:
            model = self._models[place - 1]
            model.num_deaths += 1
            exponent = min(model.num_deaths - 1, 16)
            model.until_s = time.monotonic() + min(FIRST_PAUSE_S * GROWTH**exponent, LONGEST_PAUSE_S)

    # worker

    def begin(self, model: int) -> None:
        """A load of ``model`` begins in this process."""
        self._loading[self._own] = model + 1

    def end(self, model: int, *, has_worked: bool) -> None:
        """It has ended, and the process lives."""
        self._loading[self._own] = 0
        if has_worked:
            self._models[model].num_deaths = 0

    def num_deaths(self, model: int) -> int:
        """How many loads of ``model`` in a row have ended their process."""
        return int(self._models[model].num_deaths)

    def pause_s(self, model: int) -> float:
        """For how long ``model`` is not tried again; 0 where it may be."""
        return max(self._models[model].until_s - time.monotonic(), 0.0) if self.num_deaths(model) else 0.0


_marks: LoadMarks | None = None


def set_marks(marks: LoadMarks | None) -> None:
    """Remember the server's marks; by the master, before it forks."""
    global _marks
    _marks = marks


def marks() -> LoadMarks | None:
    """Those of this server; None in the development server, which ends with its one process."""
    return _marks
