"""The first load: tried again with growing pauses, given up where the worker leaves."""

from __future__ import annotations

import threading

from app.core.errors import ModelLoadError
from app.engine.thread.first_load import FirstLoad


class Pauses(threading.Event):
    """Notes how long it was waited for, and lets nobody wait."""

    def __init__(self) -> None:
        super().__init__()
        self.pauses_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.pauses_s.append(timeout)
        return self.is_set()


class Load:
    """Fails ``num_failures`` times; notes what was told of the last failure meanwhile."""

    def __init__(self, num_failures: int):
        self.states: list[tuple[str, float]] = []
        self.first_load = FirstLoad(0, lambda *state: self.states.append(state))
        self._left = num_failures

    def __call__(self) -> str:
        assert self.first_load.failure is None, "a load is under way"
        self._left -= 1
        if self._left >= 0:
            raise ModelLoadError("no such folder")
        return "pool"


def test_pauses_double_up_to_a_minute():
    pauses, load = Pauses(), Load(7)
    assert load.first_load.run(load, pauses) == "pool"
    assert pauses.pauses_s == [2, 4, 8, 16, 32, 60, 60]


def test_every_try_and_every_failure_is_told():
    load = Load(2)
    load.first_load.run(load, Pauses())
    assert load.states == [("loading", 0.0), ("failed", 0.0)] * 2 + [("loading", 0.0)]
    assert load.first_load.failure is None


def test_a_worker_that_leaves_keeps_the_failure_and_loads_no_more():
    leaving, load = threading.Event(), Load(10**6)
    load.first_load._on_state = lambda state, _: state == "failed" and leaving.set()
    assert load.first_load.run(load, leaving) is None
    assert str(load.first_load.failure) == "no such folder"


def test_a_worker_that_leaves_before_its_first_load_loads_nothing():
    leaving, load = threading.Event(), Load(0)
    leaving.set()
    assert load.first_load.run(load, leaving) is None
    assert load.states == []
