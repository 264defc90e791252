"""This machine's part of a cluster, where Ray is installed: its node, the head, the replicas that the head tells of."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import version

from app.cli.checking.findings import Finding, Findings, Situation
from app.cluster.machine.cluster_view import ClusterView, look
from app.cluster.machine.head import Head
from app.cluster.machine.ray_node import NodeRecord, RayNode
from app.cluster.scale_error import ScaleError
from app.cluster.tokens import find_token

ADVICE = "forklift scale status shows nodes and replicas; docs/scale.md"


def check(situation: Situation) -> Findings:
    """Nothing where Ray is not installed."""
    if importlib.util.find_spec("ray") is None:
        return
    record = RayNode(situation.settings.cache_path / "scale").record()
    if record is None:
        yield Finding("scale", "ok", f"Ray {version('ray')} is installed; no node of forklift scale runs here")
    elif record.dashboard is None:
        yield Finding("scale", "ok", f"a node of the cluster at {record.address} runs here (pid {record.pid})")
    else:
        yield ask(record, record.dashboard, situation.environ)


def ask(record: NodeRecord, dashboard: str, environ: Mapping[str, str]) -> Finding:
    """Whether the head answers, and whether every replica that is wanted serves."""
    head = Head(dashboard, find_token(environ))
    try:
        found = look(head.serve_details(), head.nodes())
    except ScaleError as error:
        return Finding("scale", "fault", f"the head runs (pid {record.pid}), but: {error}", ADVICE)
    return Finding("scale", "ok", told(found)) if found.is_ready else Finding("scale", "warning", told(found), ADVICE)


def told(found: ClusterView) -> str:
    """One line about the whole."""
    if found.state is None:
        return "the head runs, and nothing is deployed"
    alive = sum(node.state == "ALIVE" for node in found.nodes)
    way = "" if found.has_proxy else ", behind no proxy"
    line = f"{found.num_running} of {found.num_wanted} replicas serve on {alive} nodes{way}: {found.state}"
    return f"{line} {found.message}".strip()
