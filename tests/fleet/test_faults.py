"""Callers of several servers while these, or ZooKeeper, fail: no call fails while one server is ready.

A stream of which its caller has a part is cut where its server dies, and counted apart: at most those in flight there.
Run with ``-s``, each test prints what its callers saw.
"""

from __future__ import annotations

import random
import signal
import time

import pytest

from tests.fleet.conftest import Callers
from tests.waiting import wait_until

pytestmark = pytest.mark.chaos
# Before and after a fault, so many answers.
SOME = 25
NUM_CALLERS = 4
SESSION_S = 1.5


@pytest.fixture
def session_s():
    return SESSION_S


@pytest.fixture
def three(start_fleet, states):
    servers = start_fleet(3)
    wait_until(lambda: sorted(states().values()) == ["ready"] * 3)
    return servers


@pytest.fixture
def callers(three, discover, request):
    """Some that have begun; reports when the test ends. ``deaths``: how many servers it kills."""
    deaths = getattr(request, "param", 0)
    with Callers(discover(), NUM_CALLERS) as found:
        found.until(SOME)
        yield found
    found.report(request.node.name)
    assert found.failures == []
    assert found.num_cut <= NUM_CALLERS * deaths


def deaths(num):
    return pytest.mark.parametrize("callers", [num], indirect=True, ids=[f"{num}-deaths"])


@deaths(1)
def test_a_server_is_killed(three, callers, states):
    three[0].signal_all(signal.SIGKILL)
    callers.until(2 * SOME)
    wait_until(lambda: len(states()) == 2)


def test_a_server_is_told_to_end(three, callers, states):
    three[0].signal(signal.SIGTERM)
    callers.until(2 * SOME)
    assert three[0].wait_for_exit() == 0
    wait_until(lambda: len(states()) == 2)


@deaths(2)
def test_two_of_three_are_killed_one_after_the_other(three, callers, states):
    for server in three[:2]:
        server.signal_all(signal.SIGKILL)
        callers.until(SOME)
    wait_until(lambda: len(states()) == 1)


@deaths(1)
def test_a_worker_is_killed_and_replaced(three, callers, states):
    three[0].processes()[1].send_signal(signal.SIGKILL)
    callers.until(2 * SOME)
    three[0].wait_until_ready(1)
    wait_until(lambda: sorted(states().values()) == ["ready"] * 3)


def test_a_server_is_reloaded(three, callers, states):
    before, pid = states(), three[0].processes()[1].pid
    three[0].signal(signal.SIGHUP)
    wait_until(lambda: pid not in [one.pid for one in three[0].processes()])
    three[0].wait_until_ready(1)
    wait_until(lambda: states() == before)
    callers.until(SOME)


@deaths(1)
def test_a_server_is_stopped_and_goes_on(three, callers, states):
    before = states()
    three[0].signal_all(signal.SIGSTOP)
    wait_until(lambda: len(states()) == 2)
    callers.until(2 * SOME)
    # What was asked there is asked elsewhere, long before its own limit.
    wait_until(lambda: callers.client._transport.num_made_again)
    three[0].signal_all(signal.SIGCONT)
    wait_until(lambda: states() == before)
    callers.until(SOME)


def test_an_engine_hangs(start_fleet, states, discover, request):
    servers = start_fleet(2, {"STEP_STALL_S": "3"})
    wait_until(lambda: sorted(states().values()) == ["ready"] * 2)
    with Callers(discover()) as callers:
        callers.until(SOME)
        servers[0].gate.touch()
        wait_until(lambda: sorted(states().values()) != ["ready"] * 2)
        servers[0].gate.unlink()
        callers.until(SOME)
        wait_until(lambda: sorted(states().values()) == ["ready"] * 2)
        callers.until(SOME)
    callers.report(request.node.name)
    assert callers.failures == []


def test_every_session_expires(zookeeper, three, callers, states):
    """ZooKeeper stops for longer than a session, and then gives all of them up."""
    before = states()
    zookeeper.signal(signal.SIGSTOP)
    time.sleep(3 * SESSION_S)
    callers.until(SOME)
    zookeeper.signal(signal.SIGCONT)
    wait_until(lambda: all(one.get("/readyz")[1]["registry"]["connected"] for one in three))
    wait_until(lambda: states() == before)
    callers.until(SOME)


def test_zookeeper_is_restarted(zookeeper, three, callers, states):
    before = states()
    zookeeper.stop()
    callers.until(SOME)
    zookeeper.start()
    wait_until(lambda: all(one.get("/readyz")[1]["registry"]["connected"] for one in three))
    wait_until(lambda: states() == before)
    callers.until(SOME)


@deaths(1)
def test_zookeeper_is_gone_for_good(zookeeper, three, callers):
    zookeeper.stop()
    callers.until(2 * SOME)
    three[0].signal_all(signal.SIGKILL)
    callers.until(2 * SOME)


def test_zookeeper_comes_back_with_nothing(zookeeper, three, callers, states):
    before = states()
    zookeeper.stop()
    zookeeper.forget()
    zookeeper.start()
    callers.until(SOME)
    wait_until(lambda: states() == before, 120)
    callers.until(SOME)


def test_the_list_is_emptied(three, callers, states, somebody):
    before = states()
    for _ in range(5):
        for name in somebody.children("/forklift/servers") or []:
            somebody.delete(f"/forklift/servers/{name}")
        callers.until(5)
    wait_until(lambda: states() == before)


@pytest.mark.parametrize(("seed", "session_s"), [(1, 6.0)])
def test_twenty_servers_come_and_go(zookeeper, start_fleet, discover, states, request, seed):
    """One stays; of the others some are killed, told to end, stopped or started, one every second."""
    draw = random.Random(seed)
    stays, *others = start_fleet(8)
    num_started = 8
    wait_until(lambda: len(states()) == 8)
    with Callers(discover(), num_threads=6) as callers:
        callers.until(SOME)
        while num_started < 20 or len(others) > 3:
            if num_started < 20 and len(others) < 6:
                others += start_fleet(1)
                num_started += 1
            victim = others.pop(draw.randrange(len(others)))
            number = draw.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
            victim.signal_all(number) if number != signal.SIGTERM else victim.signal(number)
            callers.until(10)
        for server in others:
            server.signal_all(signal.SIGKILL)
        callers.until(SOME)
        wait_until(lambda: list(states()) == [stays.server_id])
    callers.report(request.node.name)
    print("writes of the one that stayed:", stays.metric("registry_writes_total"))
    # A few may be for sessions that a busy machine let expire; thousands of calls write nothing.
    assert stays.metric("registry_writes_total") <= 10
    assert callers.failures == []
    assert num_started == 20
