"""Callers that leave, and more of them than there are places."""

from __future__ import annotations

import json
import threading

import pytest
import requests

from tests.anywhere.target import LONG, Target, read_answer

NUM_CALLERS = 60
# A request that ran to its end would keep its place for longer.
SOON_S = 5.0


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_the_place_of_a_client_that_left_is_free_again(target: Target, is_streamed: bool):
    sock = target.begin("/complete", json.dumps({"stream": is_streamed, **LONG}).encode())
    target.wait_until(target.is_busy, "the request runs")
    if is_streamed:
        assert b"200" in sock.recv(4096)
    sock.close()
    took_s = target.wait_until(target.is_idle, "the place is free", SOON_S)
    print(f"free {took_s:.2f} s after the client left")


def test_clients_that_left_while_they_waited_never_run(target: Target):
    body = json.dumps(LONG).encode()
    socks = [target.begin("/complete", body) for _ in range(6)]
    target.wait_until(target.is_busy, "a request runs")
    for sock in socks:
        sock.close()
    target.wait_until(target.is_idle, "the places are free", 2 * SOON_S)


def test_overload_is_refused_at_once_and_nothing_is_lost(target: Target):
    """More callers at once than there are places: each gets an answer, 200 or 503 with the time to come again."""
    answers: list[requests.Response] = []
    barrier = threading.Barrier(NUM_CALLERS)

    def call() -> None:
        barrier.wait()
        body = {"prompt": "def f(", "max_new_tokens": 120, "ignore_eos": True}
        answers.append(target.post("/complete", json=body))

    threads = [threading.Thread(target=call) for _ in range(NUM_CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == NUM_CALLERS
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < NUM_CALLERS
    for answer in refused:
        assert answer.status_code == 503 and answer.json()["error"]["code"] == "overloaded"
        assert int(answer.headers["Retry-After"]) >= 1
    assert len({answer.headers["X-Request-Id"] for answer in answers}) == NUM_CALLERS
    target.wait_until(target.is_idle, "the places are free")


def test_a_client_that_sends_its_request_slowly_is_served(target: Target):
    body = b'{"prompt": "a", "max_new_tokens": 2}'
    sock = target.begin("/complete", body[:10], length=len(body))
    assert target.get("/livez").status_code == 200
    sock.sendall(body[10:])
    assert read_answer(sock)[0] == 200
