"""What callers see while a replica dies, hangs or is replaced. Each count stands in docs/reliability.md."""

from __future__ import annotations

import time

import pytest

from app.cluster.scale_plan import Entrance, Replicas, ScalePlan
from app.core.settings import load_settings
from tests.scale.callers import CALM_S, MOST_LOST, calling
from tests.scale.cluster import PORT, Cluster, stop
from tests.service.conftest import wait_for

QUICK_TO_SEE = {"STALL_TIMEOUT_S": "3", "QUEUE_TIMEOUT_S": "200", "COMPILE": "never", "DEVICE": "cpu"}


def test_kill_9_of_a_replica_loses_no_more_than_it_had(two_nodes: Cluster):
    two_nodes.wait_until_serving(2)
    victim = two_nodes.replicas()[0]
    with calling(two_nodes.url) as callers:
        time.sleep(CALM_S)
        stop(victim.pid)
        took_s = two_nodes.wait_until_serving(2, without={victim.instance})
        time.sleep(CALM_S)
    callers.report("kill -9 of a replica", took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost <= MOST_LOST


def test_a_rolling_update_loses_nothing(two_nodes: Cluster, request: pytest.FixtureRequest):
    two_nodes.wait_until_serving(2)
    before = {one.instance for one in two_nodes.replicas()}
    proxy = request.node.callspec.params["two_nodes"]
    with calling(two_nodes.url) as callers:
        time.sleep(CALM_S)
        begun_s = time.monotonic()
        two_nodes.change(default_new_tokens=127)
        two_nodes.up("2", proxy=proxy)
        two_nodes.wait_until_serving(2, without=before)
        took_s = time.monotonic() - begun_s
        time.sleep(CALM_S)
    callers.report("rolling update", took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost == 0


def test_a_replica_whose_engine_hangs_is_replaced(two_nodes: Cluster, request: pytest.FixtureRequest):
    proxy = request.node.callspec.params["two_nodes"]
    before = {one.instance for one in two_nodes.replicas()}
    settings = load_settings({f"FORKLIFT_{name}": value for name, value in QUICK_TO_SEE.items()})
    plan = ScalePlan(settings, Replicas(2, 2), Entrance(port=PORT, proxy=proxy, on="head"))
    two_nodes.deploy_with_faults(plan)
    two_nodes.wait_until_serving(2, without=before)
    before = {one.instance for one in two_nodes.replicas()}
    with calling(two_nodes.url) as callers:
        time.sleep(CALM_S)
        two_nodes.fault_file.write_text("stall")
        begun_s = time.monotonic()
        wait_for(lambda: not two_nodes.fault_file.exists(), "the fault", 30)
        wait_for(lambda: _num_left(two_nodes, before) == 1, "the end of the replica that hangs", 60)
        two_nodes.wait_until_serving(2)
        took_s = time.monotonic() - begun_s
        time.sleep(CALM_S)
    callers.report("hung engine", took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost <= MOST_LOST


def _num_left(made: Cluster, before: set[str]) -> int:
    return len(before & {one.instance for one in made.replicas()})
