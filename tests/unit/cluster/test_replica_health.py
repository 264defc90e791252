"""The watch's word as a health answer: callers get their errors, Ray is told, and then the process ends."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.cluster.replica_health import DefectError, ReplicaHealth
from app.core.errors import ModelLoadError
from app.serve.processes import watch
from tests.waiting import wait_until


def worker(defect=None, failure=None):
    """A context whose inference thread has a defect, or could not load."""
    told = []
    board = SimpleNamespace(set_state=lambda slot, state: told.append(state), claim_halt=lambda: True)
    inference = SimpleNamespace(
        defect=lambda: defect, load_failure=lambda: failure, cancel_all=told.append, start_anew=lambda: None
    )
    return SimpleNamespace(inference=inference, board=board, slot=0), told


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(watch, "PERIOD_S", 0.01)
    monkeypatch.setattr(watch, "LAST_WORDS_S", 0.0)


def is_sick(health: ReplicaHealth) -> bool:
    try:
        health.check()
    except Exception:
        return True
    return False


def test_a_hung_engine_is_told_to_ray_and_its_requests_end_before_its_process_does():
    context, told = worker(defect="no token for 120 s")
    codes: list[int] = []
    health = ReplicaHealth(context, codes.append)
    wait_until(lambda: codes, limit_s=20)
    with pytest.raises(DefectError):
        health.check()
    assert codes == [1] and told[0] == "failed" and len(told) == 2


def test_a_load_that_fails_is_told_by_its_own_line():
    health = ReplicaHealth(worker(failure=ModelLoadError("no such folder"))[0])
    wait_until(lambda: is_sick(health), limit_s=20)
    with pytest.raises(ModelLoadError, match="no such folder"):
        health.check()


def test_a_sound_replica_is_well():
    ReplicaHealth(worker()[0]).check()
