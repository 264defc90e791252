"""How ``ray start`` is called on a machine, and the environment that it needs. Pure but for the folder of the state."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from app.cluster.machine.ray_node import path_of_programs
from app.cluster.scale_plan import ScalePlan


@dataclass(frozen=True)
class NodeOptions:
    """What is the machine's own; what is None is for Ray to find."""

    address: str | None
    head_port: int
    dashboard_port: int
    object_store_bytes: int
    storage: str | None
    num_cpus: int | None = None
    num_gpus: int | None = None

    @property
    def head_address(self) -> str:
        return f"{self.address or '127.0.0.1'}:{self.head_port}"

    @property
    def dashboard_url(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"


def head_arguments(options: NodeOptions) -> list[str]:
    """The dashboard answers on loopback only: whoever reaches it can run code."""
    ports = [f"--port={options.head_port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={options.dashboard_port}"]
    return ["--head", *ports, "--include-dashboard=true", *_common(options)]


def joining_arguments(options: NodeOptions, head_address: str) -> list[str]:
    return [f"--address={head_address}", *_common(options)]


def _common(options: NodeOptions) -> list[str]:
    given = ["--disable-usage-stats", f"--object-store-memory={options.object_store_bytes}"]
    own = {"node-ip-address": options.address, "num-cpus": options.num_cpus, "num-gpus": options.num_gpus}
    return [*given, *(f"--{name}={value}" for name, value in own.items() if value is not None)]


def node_environment(plan: ScalePlan, options: NodeOptions) -> dict[str, str]:
    """This process's environment, and what Ray's processes need besides; makes the folder of the head's state."""
    storage = Path(options.storage) if options.storage else plan.settings.cache_path / "scale" / "head"
    storage.mkdir(parents=True, exist_ok=True)
    kept = {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": str(storage.resolve())}
    return {**os.environ, **plan.environment(), **kept, "PATH": path_of_programs()}
