"""Callers compile in turn; one who waits no longer leaves the queue."""

from __future__ import annotations

import threading

import pytest

from app.core.errors import RequestTimeoutError
from app.models.grammars.compile_queue import CompileQueue


def forever() -> None:
    pass


def give_up() -> None:
    raise RequestTimeoutError("late")


def test_keys_are_served_in_rotation_whoever_asked_more():
    turns, order, started = CompileQueue(1), [], []

    def work(scope: str) -> None:
        started.append(scope)
        with turns.taken(scope, forever):
            order.append(scope)

    with turns.taken("other", forever):
        threads = []
        for scope in ["greedy"] * 4 + ["modest"]:
            threads.append(threading.Thread(target=work, args=(scope,)))
            threads[-1].start()
            while sum(map(len, turns._waiting.values())) < len(threads):
                pass
    for thread in threads:
        thread.join()
    assert order.index("modest") <= 1
    assert sorted(order) == sorted(started)


def test_one_who_gives_up_keeps_no_place():
    turns = CompileQueue(1)
    with turns.taken("a", forever), pytest.raises(RequestTimeoutError), turns.taken("b", give_up):
        pass
    with turns.taken("c", forever):
        pass


def test_a_place_comes_back_from_a_failure():
    turns = CompileQueue(1)
    with pytest.raises(ValueError, match="no"), turns.taken("a", forever):
        raise ValueError("no")
    with turns.taken("a", forever):
        pass
