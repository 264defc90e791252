"""What ``forklift doctor`` says of a machine's part of a cluster."""

from __future__ import annotations

import os

import psutil
import pytest

from app.cli.checking.extras import scale_check
from app.cli.checking.findings import Situation
from app.cluster.machine.head import Head, HeadError
from app.cluster.machine.ray_node import NodeRecord, RayNode
from app.core.settings import load_settings

NODE = {"node_id": "n1", "node_ip": "10.0.0.1", "state": "ALIVE", "is_head_node": True}


@pytest.fixture
def found(tmp_path, monkeypatch):
    """What is found where Ray is there; a node runs where ``dashboard`` is not left out."""
    monkeypatch.setattr(scale_check.importlib.util, "find_spec", lambda _name: object())
    monkeypatch.setattr(scale_check, "version", lambda _name: "2.60.0")

    def examine(dashboard=...):
        own = psutil.Process(os.getpid())
        record = NodeRecord(own.pid, own.create_time(), "10.0.0.1:6379", None if dashboard is ... else dashboard)
        monkeypatch.setattr(RayNode, "record", lambda _self: None if dashboard is ... else record)
        environ = {"FORKLIFT_CACHE_DIR": str(tmp_path), "HOME": str(tmp_path)}
        [finding] = scale_check.check(Situation(environ, load_settings(environ)))
        return finding.level, finding.text

    return examine


def test_a_machine_without_ray_has_nothing_to_say(monkeypatch):
    monkeypatch.setattr(scale_check.importlib.util, "find_spec", lambda _name: None)
    assert list(scale_check.check(Situation({}, load_settings({})))) == []


def test_a_machine_without_a_node_and_one_that_joined_are_in_order(found):
    assert found() == ("ok", "Ray 2.60.0 is installed; no node of forklift scale runs here")
    level, text = found(None)
    assert level == "ok" and "a node of the cluster at 10.0.0.1:6379 runs here" in text


def details(num_running):
    replicas = [{"replica_id": f"r{at}", "node_ip": "10.0.0.1", "state": "RUNNING"} for at in range(num_running)]
    deployment = {"target_num_replicas": 2, "replicas": replicas, "message": ""}
    application = {"status": "RUNNING" if num_running == 2 else "DEPLOYING", "deployments": {"Replica": deployment}}
    return {"applications": {"forklift": application}, "proxies": {"n1": {"status": "HEALTHY"}}}


@pytest.mark.parametrize(
    ("told", "level", "text"),
    [
        (details(2), "ok", "2 of 2 replicas serve on 1 nodes: RUNNING"),
        (details(1), "warning", "1 of 2 replicas serve on 1 nodes: DEPLOYING"),
        ({}, "warning", "the head runs, and nothing is deployed"),
    ],
)
def test_the_head_tells_how_many_replicas_serve(found, monkeypatch, told, level, text):
    monkeypatch.setattr(Head, "serve_details", lambda _self: told)
    monkeypatch.setattr(Head, "nodes", lambda _self: [NODE])
    assert found("http://127.0.0.1:8265") == (level, text)


def test_a_head_that_does_not_answer_is_a_fault(found, monkeypatch):
    def fail(_self):
        raise HeadError("no answer from the head")

    monkeypatch.setattr(Head, "serve_details", fail)
    level, text = found("http://127.0.0.1:8265")
    assert level == "fault" and "no answer from the head" in text
