"""What callers see while parts of a cluster die, hang, leave or change. Each count stands in docs/reliability.md."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from app.cluster.scale_plan import Entrance, Replicas, ScalePlan
from app.core.settings import load_settings
from tests.scale.callers import Callers, calling
from tests.scale.cluster import PORT, Cluster, cluster, stop
from tests.service.conftest import wait_for

NUM_CALLERS = 4
QUICK_TO_SEE = {"STALL_TIMEOUT_S": "3", "QUEUE_TIMEOUT_S": "200", "COMPILE": "never", "DEVICE": "cpu"}
# Before and behind what happens.
CALM_S = 4.0
# One for each call that the process which died had in its hands, and one that reached it before anybody knew.
MOST_LOST = 2 * NUM_CALLERS


def report(what: str, callers: Callers, took_s: float) -> None:
    print(f"\n{what}: {dict(callers.outcomes)}, {took_s:.1f} s {callers.odd[:2]}")


def test_kill_9_of_a_replica_loses_no_more_than_it_had(two_nodes: Cluster):
    two_nodes.wait_until_serving(2)
    victim = two_nodes.replicas()[0]
    with calling(two_nodes.url, NUM_CALLERS) as callers:
        time.sleep(CALM_S)
        stop(victim.pid)
        took_s = two_nodes.wait_until_serving(2, without={victim.instance})
        time.sleep(CALM_S)
    report("kill -9 of a replica", callers, took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost <= MOST_LOST


def test_a_rolling_update_loses_nothing(two_nodes: Cluster, request: pytest.FixtureRequest):
    two_nodes.wait_until_serving(2)
    before = {one.instance for one in two_nodes.replicas()}
    proxy = request.node.callspec.params["two_nodes"]
    with calling(two_nodes.url, NUM_CALLERS) as callers:
        time.sleep(CALM_S)
        begun_s = time.monotonic()
        two_nodes.change(default_new_tokens=127)
        two_nodes.up("2", proxy=proxy)
        two_nodes.wait_until_serving(2, without=before)
        took_s = time.monotonic() - begun_s
        time.sleep(CALM_S)
    report("rolling update", callers, took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost == 0


def test_a_replica_whose_engine_hangs_is_replaced(two_nodes: Cluster, request: pytest.FixtureRequest):
    proxy = request.node.callspec.params["two_nodes"]
    before = {one.instance for one in two_nodes.replicas()}
    settings = load_settings({f"FORKLIFT_{name}": value for name, value in QUICK_TO_SEE.items()})
    plan = ScalePlan(settings, Replicas(2, 2), Entrance(port=PORT, proxy=proxy, on="head"))
    two_nodes.deploy_with_faults(plan)
    two_nodes.wait_until_serving(2, without=before)
    before = {one.instance for one in two_nodes.replicas()}
    with calling(two_nodes.url, NUM_CALLERS) as callers:
        time.sleep(CALM_S)
        two_nodes.fault_file.write_text("stall")
        begun_s = time.monotonic()
        wait_for(lambda: not two_nodes.fault_file.exists(), "the fault", 30)
        wait_for(lambda: _num_left(two_nodes, before) == 1, "the end of the replica that hangs", 60)
        two_nodes.wait_until_serving(2)
        took_s = time.monotonic() - begun_s
        time.sleep(CALM_S)
    report("hung engine", callers, took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost <= MOST_LOST


def _num_left(made: Cluster, before: set[str]) -> int:
    return len(before & {one.instance for one in made.replicas()})


def test_the_head_comes_back_with_what_it_knew(short_folder: Path, proxy: str):
    """It has no replica; its store is killed, which takes its other processes along, and it is brought up again."""
    every_node = {"proxies": "every-node", "proxy": proxy}
    with cluster(short_folder, 2, "1", every_node, node_cpus=(0, 1)) as made:
        made.wait_until_serving(1)
        before = made.instances()
        with calling(made.url, NUM_CALLERS) as callers:
            time.sleep(CALM_S)
            begun_s = time.monotonic()
            made.kill(0, "gcs_server")
            wait_for(lambda: made.node(0).record() is None, "the end of the head", 30)
            served = callers.outcomes["answered"]
            time.sleep(CALM_S)
            assert callers.outcomes["answered"] > served, "callers are served while there is no head"
            made.forget_head()
            made.up("1", **every_node)
            took_s = time.monotonic() - begun_s
            time.sleep(CALM_S)
        report("head killed and brought up", callers, took_s)
        assert made.instances() == before
    assert callers.num_lost <= NUM_CALLERS


@pytest.fixture
def three_nodes(short_folder: Path, proxy: str):
    with cluster(short_folder, 3, "2", {"proxy": proxy}) as made:
        yield made


def test_a_node_that_is_drained_loses_nothing(three_nodes: Cluster):
    """Two of three nodes have a replica, and the third one takes over."""
    three_nodes.wait_until_serving(2)
    number = _with_replica(three_nodes)
    with calling(three_nodes.url, NUM_CALLERS) as callers:
        time.sleep(CALM_S)
        begun_s = time.monotonic()
        three_nodes.forklift(0, "drain", three_nodes.address(number))
        three_nodes.wait_until_serving(2)
        took_s = time.monotonic() - begun_s
        time.sleep(CALM_S)
    report("drain", callers, took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost == 0


def test_kill_9_of_a_node_loses_no_more_than_it_had(three_nodes: Cluster):
    three_nodes.wait_until_serving(2)
    number = _with_replica(three_nodes)
    victims = {one.instance for one in three_nodes.replicas() if one.address == three_nodes.address(number)}
    with calling(three_nodes.url, NUM_CALLERS) as callers:
        time.sleep(CALM_S)
        three_nodes.kill_node(number)
        took_s = three_nodes.wait_until_serving(2, without=victims)
        time.sleep(CALM_S)
    report("kill -9 of a node", callers, took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost <= MOST_LOST


def _with_replica(made: Cluster) -> int:
    """A node besides the head that has one."""
    addresses = {one.address for one in made.replicas()}
    return next(at for at in (1, 2) if made.address(at) in addresses)


def test_replicas_come_and_go_with_the_load_and_nothing_is_lost(short_folder: Path, proxy: str):
    with cluster(short_folder, 2, "1-2", {"proxy": proxy}) as made:
        made.wait_until_serving(1)
        with calling(made.url, 10) as callers:
            grown_s = made.wait_until_serving(2)
            time.sleep(CALM_S)
        with calling(made.url, 1) as calm:
            begun_s = time.monotonic()
            wait_for(lambda: len(made.replicas()) == 1, "one replica again", 180)
            shrunk_s = time.monotonic() - begun_s
            time.sleep(CALM_S)
    report(f"1 -> 2 after {grown_s:.1f} s", callers, grown_s)
    report(f"2 -> 1 after {shrunk_s:.1f} s", calm, shrunk_s)
    assert callers.num_lost == calm.num_lost == 0
