"""What callers see while nodes die, leave or come, and without a head. Each count stands in docs/reliability.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scale.callers import CALM_S, MOST_LOST, calling
from tests.scale.cluster import Cluster, cluster
from tests.scale.two_machines import missing, two_machines
from tests.service.conftest import wait_for


def test_the_head_comes_back_with_what_it_knew(proxy: str):
    """It has no replica; its store is killed, which takes its other processes along, and it is brought up again."""
    if (reason := missing()) is not None:
        pytest.skip(reason)
    every_node = {"proxies": "every-node", "proxy": proxy}
    with two_machines("1", every_node, node_cpus=(0, 1)) as made:
        made.wait_until_serving(1)
        before = made.instances()
        with calling(made.url) as callers:
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
        callers.report("head killed and brought up", took_s)
        assert made.instances() == before
    assert callers.num_lost == 0


@pytest.fixture
def three_nodes(short_folder: Path, proxy: str) -> Iterator[Cluster]:
    with cluster(short_folder, 3, "2", {"proxy": proxy}) as made:
        yield made


def test_a_node_that_is_drained_loses_nothing(three_nodes: Cluster):
    """Two of three nodes have a replica, and the third one takes over."""
    three_nodes.wait_until_serving(2)
    number = _with_replica(three_nodes)
    with calling(three_nodes.url) as callers:
        time.sleep(CALM_S)
        begun_s = time.monotonic()
        three_nodes.forklift(0, "drain", three_nodes.address(number))
        three_nodes.wait_until_serving(2)
        took_s = time.monotonic() - begun_s
        time.sleep(CALM_S)
    callers.report("drain", took_s)
    assert callers.outcomes["answered"] > 0 and callers.num_lost == 0


def test_kill_9_of_a_node_loses_no_more_than_it_had(three_nodes: Cluster):
    three_nodes.wait_until_serving(2)
    number = _with_replica(three_nodes)
    victims = {one.instance for one in three_nodes.replicas() if one.address == three_nodes.address(number)}
    with calling(three_nodes.url) as callers:
        time.sleep(CALM_S)
        three_nodes.kill_node(number)
        took_s = three_nodes.wait_until_serving(2, without=victims)
        time.sleep(CALM_S)
    callers.report("kill -9 of a node", took_s)
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
    callers.report("1 -> 2", grown_s)
    calm.report("2 -> 1", shrunk_s)
    assert callers.num_lost == calm.num_lost == 0
