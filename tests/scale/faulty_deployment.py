"""The deployment with an engine in which tests order faults (``tests/e2e/faults.py``). In replicas."""

from __future__ import annotations

from typing import Any

from app.cluster import deployment, replica
from tests.e2e.faults import Faults

# A replica is a process of its own, which unpickles the class by its module's name.
BaseDeployed = deployment.Deployed


class FaultyDeployed(BaseDeployed):
    def __init__(self, *args: Any):
        replica.make_inference = Faults().make(replica.make_inference)
        super().__init__(*args)


def build(args: dict[str, Any]) -> Any:
    deployment.Deployed = FaultyDeployed  # type: ignore[misc]
    return deployment.build(args)
