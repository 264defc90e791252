"""A pool that goes on where the machine gives no more threads."""

from __future__ import annotations

import threading

import pytest

from app.serve.processes.http_threads import HttpThreads, NoThreadError


def refuse(monkeypatch) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)


def test_work_is_done_and_errors_come_back():
    pool = HttpThreads("t", 3)
    assert [future.result(10) for future in [pool.submit(pow, 2, n) for n in range(20)]] == [2**n for n in range(20)]
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 / 0).result(10)


def test_threads_are_started_as_they_are_needed_and_no_more():
    pool, gate = HttpThreads("t", 3), threading.Event()
    futures = [pool.submit(gate.wait, 10) for _ in range(8)]
    assert pool._num_threads == 3
    gate.set()
    assert all(future.result(10) for future in futures)


def test_where_no_more_can_be_started_those_that_are_there_do_the_work(monkeypatch):
    pool = HttpThreads("t", 4)
    refuse(monkeypatch)
    futures = [pool.submit(pow, 2, n) for n in range(10)]
    assert [future.result(10) for future in futures] == [2**n for n in range(10)]


def test_where_there_is_none_the_caller_is_told(monkeypatch):
    refuse(monkeypatch)
    with pytest.raises(NoThreadError):
        HttpThreads("t", 4).submit(pow, 2, 3)
