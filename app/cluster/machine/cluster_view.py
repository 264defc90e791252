"""A cluster as its operator sees it: nodes, proxies, replicas and their states, read from what the head tells. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.cluster.scale_plan import APPLICATION, DEPLOYMENT


@dataclass(frozen=True)
class NodeView:
    """``state`` in Ray's words: ALIVE or DEAD."""

    node_id: str
    address: str
    state: str
    is_head: bool
    proxy: str
    num_replicas: int


@dataclass(frozen=True)
class ReplicaView:
    """``instance`` is what its answers bear as X-Instance; ``state`` in Serve's words."""

    instance: str
    address: str
    state: str
    pid: int | None


@dataclass(frozen=True)
class ClusterView:
    """``state`` and ``message`` are Serve's of the application; None where nothing is deployed."""

    state: str | None
    message: str
    num_wanted: int
    nodes: Sequence[NodeView]
    replicas: Sequence[ReplicaView]
    # Whether callers may come in at every node with a replica.
    are_proxies_everywhere: bool = False

    @property
    def num_running(self) -> int:
        return sum(replica.state == "RUNNING" for replica in self.replicas)

    @property
    def has_proxy(self) -> bool:
        """Whether callers can come in, wherever they are told to."""
        alive = [node for node in self.nodes if node.state == "ALIVE"]
        doors = [node for node in alive if node.num_replicas] if self.are_proxies_everywhere else []
        return any(map(_is_open, alive)) and all(map(_is_open, doors))

    @property
    def is_ready(self) -> bool:
        """Whether every replica that is wanted serves, and the proxies lead there."""
        return self.state == "RUNNING" and self.has_proxy and 0 < self.num_wanted <= self.num_running

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def look(details: Mapping[str, Any], nodes: Sequence[Mapping[str, Any]]) -> ClusterView:
    """The view of ``Head.serve_details`` and ``Head.nodes``."""
    application = (details.get("applications") or {}).get(APPLICATION) or {}
    deployment = (application.get("deployments") or {}).get(DEPLOYMENT) or {}
    replicas = [_replica(one) for one in deployment.get("replicas") or ()]
    proxies = details.get("proxies") or {}
    return ClusterView(
        state=application.get("status"),
        message=str(deployment.get("message") or application.get("message") or ""),
        num_wanted=int(deployment.get("target_num_replicas") or 0),
        nodes=[_node(one, proxies, replicas) for one in nodes],
        replicas=replicas,
        are_proxies_everywhere=details.get("proxy_location") == "EveryNode",
    )


def _is_open(node: NodeView) -> bool:
    return node.proxy == "HEALTHY"


def _replica(told: Mapping[str, Any]) -> ReplicaView:
    return ReplicaView(str(told["replica_id"]), str(told.get("node_ip") or ""), str(told["state"]), told.get("pid"))


def _node(told: Mapping[str, Any], proxies: Mapping[str, Any], replicas: Sequence[ReplicaView]) -> NodeView:
    address = str(told["node_ip"])
    return NodeView(
        node_id=str(told["node_id"]),
        address=address,
        state=str(told["state"]),
        is_head=bool(told.get("is_head_node")),
        proxy=str((proxies.get(told["node_id"]) or {}).get("status") or ""),
        num_replicas=sum(replica.address == address and replica.state == "RUNNING" for replica in replicas),
    )
