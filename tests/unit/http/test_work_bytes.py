"""Bytes of requests in hand are bounded over all of them, and are given back whatever becomes of a request."""

from __future__ import annotations

import threading

import pytest

from app.core.errors import OverloadedError
from app.http.application import work_bytes
from app.http.application.work_bytes import WorkBytes


def test_more_bytes_than_the_limit_are_overload():
    work = WorkBytes(100)
    work.take(60)
    with pytest.raises(OverloadedError) as refusal:
        work.take(41)
    assert refusal.value.retry_after_s
    work.give_back(60)
    work.take(100)


def test_behind_a_large_body_memory_goes_back(monkeypatch):
    trims = []
    monkeypatch.setattr(work_bytes, "trim_heap", lambda: trims.append(1))
    work = WorkBytes(2**30, trim_after_s=0.01)
    for size in (10, 2**20, 2**20):
        work.take(size)
    work.give_back(10)
    assert work._timer is None
    work.give_back(2**20)
    timer = work._timer
    work.give_back(2**20)
    timer.join(10)
    assert trims == [1]
    assert work.taken == 0


def test_where_no_thread_can_be_started_memory_goes_back_at_once(monkeypatch):
    def refuse(_timer):
        raise RuntimeError("can't start new thread")

    trims = []
    monkeypatch.setattr(work_bytes, "trim_heap", lambda: trims.append(1))
    work = WorkBytes(2**30)
    work.take(2**21)
    with monkeypatch.context() as short:
        short.setattr(threading.Timer, "start", refuse)
        work.give_back(2**20)
    assert (work.taken, trims, work._timer) == (2**20, [1], None)
    work.give_back(2**20)
    assert (work.taken, trims, work._timer is None) == (0, [1], False)
    work._timer.cancel()
