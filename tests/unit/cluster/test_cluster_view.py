"""What the head tells, as an operator sees it; when a deployment counts as up."""

from __future__ import annotations

import pytest

from app.cluster.machine.cluster_view import look
from app.cluster.scale_plan import APPLICATION, DEPLOYMENT

NODES = [
    {"node_id": "aa", "node_ip": "10.0.0.1", "state": "ALIVE", "is_head_node": True},
    {"node_id": "bb", "node_ip": "10.0.0.2", "state": "ALIVE", "is_head_node": False},
]


def details(*states: str, status: str = "RUNNING", wanted: int = 2, proxy: str = "HEALTHY"):
    replicas = [
        {"replica_id": f"r{at}", "node_ip": f"10.0.0.{at + 1}", "state": state, "pid": 100 + at}
        for at, state in enumerate(states)
    ]
    deployment = {"target_num_replicas": wanted, "replicas": replicas, "message": ""}
    application = {"status": status, "message": "", "deployments": {DEPLOYMENT: deployment}}
    return {"applications": {APPLICATION: application}, "proxies": {"aa": {"status": proxy}}}


@pytest.mark.parametrize(
    ("told", "is_ready"),
    [
        (details("RUNNING", "RUNNING"), True),
        (details("RUNNING", "STARTING"), False),
        (details("RUNNING", "RUNNING", status="DEPLOYING"), False),
        (details("RUNNING", "RUNNING", proxy="STARTING"), False),
        (details(wanted=0), False),
        ({"applications": {}, "proxies": {}}, False),
        ({}, False),
    ],
)
def test_a_deployment_is_up_once_every_replica_serves_and_a_proxy_leads_there(told, is_ready):
    assert look(told, NODES).is_ready is is_ready


def test_where_callers_come_in_at_every_node_each_with_a_replica_must_be_open():
    told = details("RUNNING", "RUNNING") | {"proxy_location": "EveryNode"}
    dead = {"node_id": "cc", "node_ip": "10.0.0.2", "state": "DEAD"}
    assert not look(told, [*NODES, dead]).is_ready
    told["proxies"]["bb"] = {"status": "HEALTHY"}
    assert look(told, [*NODES, dead]).is_ready


def test_each_node_and_replica_is_told():
    found = look(details("RUNNING", "STARTING"), NODES)
    assert [(node.address, node.is_head, node.proxy, node.num_replicas) for node in found.nodes] == [
        ("10.0.0.1", True, "HEALTHY", 1),
        ("10.0.0.2", False, "", 0),
    ]
    assert [(one.instance, one.state, one.pid) for one in found.replicas] == [
        ("r0", "RUNNING", 100),
        ("r1", "STARTING", 101),
    ]
    assert (found.num_running, found.num_wanted, found.state) == (1, 2, "RUNNING")
