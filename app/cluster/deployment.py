"""The application as Ray Serve deploys it: ``import_path`` of Serve's config file. Needs Ray; a replica's process.

What a replica is stands in ``replica.py``; here is what Ray wants to know of it, and when.
"""

from __future__ import annotations

from typing import Any

from ray import serve, util

from app.cluster.autoscaling import PLACES
from app.cluster.bridge.wsgi_bridge import WsgiBridge
from app.cluster.metrics_port import serve_metrics
from app.cluster.replica import Replica
from app.cluster.scale_plan import DEPLOYMENT


class Deployed:
    """One replica as Serve calls it; ready once its models are loaded."""

    def __init__(self, settings: dict[str, str], keys: str | None, metrics_port: int):
        self._replica = Replica(serve.get_replica_context().replica_id.unique_id, settings, keys)
        self._first_metrics_port = metrics_port

    async def __serve_build_asgi_app__(self) -> WsgiBridge:
        await self._replica.wait_until_ready()
        serve_metrics(self._replica.bridge(), util.get_node_ip_address(), self._first_metrics_port)
        return self._replica.bridge()

    def check_health(self) -> None:
        """Asked every few seconds; what it raises has the replica replaced."""
        self._replica.check_health()

    def record_autoscaling_stats(self) -> dict[str, float]:
        """Read by ``autoscaling.by_places``."""
        return {PLACES: float(self._replica.num_places_taken())}


def build(args: dict[str, Any]) -> Any:
    """The application of Serve's config file with its ``args``."""
    deployment = serve.deployment(name=DEPLOYMENT)(serve.ingress()(Deployed))
    return deployment.bind(args["settings"], args.get("keys"), args["metrics_port"])
