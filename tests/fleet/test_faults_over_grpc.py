"""Callers over gRPC of several servers while these fail: as over HTTP, no call fails while one server is ready."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("grpc", reason="the extra grpc is not installed")

from tests.contract.rpc_bind import unused_address
from tests.fleet.conftest import Callers
from tests.waiting import wait_until

pytestmark = pytest.mark.chaos
SOME = 25
NUM_CALLERS = 4


EVENTS = {
    "killed": lambda server: server.signal_all(signal.SIGKILL),
    "told to end": lambda server: server.signal(signal.SIGTERM),
    "stopped": lambda server: server.signal_all(signal.SIGSTOP),
}


@pytest.fixture
def session_s():
    return 1.5


@pytest.fixture
def three(start_fleet, states):
    servers = [start_fleet(1, grpc_bind=unused_address())[0] for _ in range(3)]
    wait_until(lambda: sorted(states().values()) == ["ready"] * 3)
    return servers


@pytest.mark.parametrize("event", EVENTS)
def test_what_a_server_does_not_answer_another_one_does(three, discover, states, event):
    with Callers(discover(over="grpc"), NUM_CALLERS) as callers:
        callers.until(SOME)
        before = states()
        EVENTS[event](three[0])
        wait_until(lambda: len(states()) == 2)
        callers.until(2 * SOME)
        if event == "stopped":
            wait_until(lambda: callers.client._transport.num_made_again)
            three[0].signal_all(signal.SIGCONT)
            wait_until(lambda: states() == before)
            callers.until(SOME)
    callers.report(f"over gRPC, a server is {event}")
    assert callers.failures == []
    assert callers.num_cut <= (NUM_CALLERS if event != "told to end" else 0)
