"""The watch, when the process did not run for a while."""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from app.engine.thread.stall_clock import StallClock
from app.serve.processes import watch as watch_module
from app.serve.processes.watch import Watch


class StopError(Exception):
    """Ends the watch's loop."""


def run_watch(monkeypatch, gaps_s):
    """Lets the watch look once after each pause; returns what it told the inference thread."""
    told = []
    now = [1000.0]
    gaps = iter(gaps_s)

    def sleep(_seconds):
        gap_s = next(gaps, None)
        if gap_s is None:
            raise StopError
        now[0] += gap_s

    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=sleep)
    monkeypatch.setattr(watch_module, "time", clock)
    inference = SimpleNamespace(
        start_anew=lambda: told.append("anew"), load_failure=lambda: None, defect=lambda: told.append("look")
    )
    with pytest.raises(StopError):
        Watch(SimpleNamespace(inference=inference))._run()
    return told


def test_a_watch_that_did_not_run_itself_starts_anew_before_it_judges(monkeypatch):
    assert run_watch(monkeypatch, [0.5, 9.0, 0.5]) == ["look", "anew", "look", "look"]


def test_what_seems_late_after_a_stop_gets_its_whole_time_again():
    clock = StallClock(load_timeout_s=100.0, stall_timeout_s=5.0)
    clock.note_step()
    now_s = time.monotonic()
    assert clock.overdue(now_s + 9.0)
    clock.start_anew(now_s + 9.0)
    assert clock.overdue(now_s + 10.0) is None
    assert clock.overdue(now_s + 15.0)
    clock.note_idle()
    assert clock.overdue(now_s + 99.0) is None
