"""What a deployment on Ray Serve is made of, as plain data: its replicas, its proxies, and Serve's own config file.

Pure: knows the settings, not Ray. ``python -m tools.ray_config`` writes ``deploy/ray/forklift.yaml`` from it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from app.cluster.scale_error import ScaleError
from app.core.errors import SettingsError
from app.core.parsing.environment import PREFIX
from app.core.settings import Settings

APPLICATION = "forklift"
DEPLOYMENT = "Replica"
IMPORT_PATH = "app.cluster.deployment:build"
POLICY = "app.cluster.autoscaling:by_places"
MIDDLEWARES = "app.cluster.proxy_middleware:middlewares"
# Serve's bound on requests in a replica is not exact, and what it refuses gets plain text: it stands above ours.
MORE_THAN_ADMITTED = 1000
# What a replica gets beyond DRAIN_TIMEOUT_S and beyond the longest request before it is killed.
GRACE_S = 15
# Between the last look of a proxy at the list of replicas and the end of one that is to go.
LEAVING_S = 5
HEALTH_PERIOD_S = 2.0
# The answer costs nothing; a process that gives none for so long is stopped or starved.
HEALTH_TIMEOUT_S = 10.0
DRAIN_LOOK_S = 0.5
# For so long everything goes on without a head, which is brought up again meanwhile; Ray's own limit is a minute.
WITHOUT_HEAD_S = 900
# Of the places that a replica has, so many may be taken before another one is wanted.
TARGET_SHARE = 0.7
# Replicas tell of their places so often; the mean of the last looks decides.
PUSH_S = 2.0
LOOK_BACK_S = 6.0
UPSCALE_DELAY_S = 5.0
DOWNSCALE_DELAY_S = 60.0

# What is said to Ray by flags, or does not exist there.
NOT_OF_A_REPLICA = frozenset({"bind", "workers", "tls_cert", "tls_key"})
# Stay in each node's environment: arguments of an application can be read in Ray's dashboard.
SECRET = frozenset({"api_keys"})
# Replicas run in another folder. A hub id is no path that is there.
PATHS = frozenset({"model", "models", "chat_template", "offload_folder", "cache_dir"})
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


@dataclass(frozen=True)
class Replicas:
    """How many: ``least`` to ``most``, fixed where both are the same."""

    least: int = 1
    most: int = 1
    num_cpus: float = 1.0
    num_gpus: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most:
            raise ScaleError(f"{self.least} to {self.most} replicas cannot be: at least one, and no more than the most")

    @property
    def are_fixed(self) -> bool:
        return self.least == self.most


@dataclass(frozen=True)
class Entrance:
    """Where callers come in. ``affinity``: a header whose value chooses the replica."""

    host: str = "0.0.0.0"
    port: int = 8000
    proxy: Literal["haproxy", "python"] = "haproxy"
    affinity: str | None = None
    # On every node with a replica, or on the head alone.
    on: Literal["every-node", "head"] = "every-node"

    def __post_init__(self) -> None:
        if self.affinity is None:
            return
        if not _HEADER.fullmatch(self.affinity):
            raise ScaleError(f"{self.affinity!r} is no name of a header")
        if self.proxy == "python":
            raise ScaleError("session affinity needs HAProxy: Ray's own proxy chooses the replica with less to do")


@dataclass(frozen=True)
class ScalePlan:
    """One application on one cluster."""

    settings: Settings
    replicas: Replicas
    entrance: Entrance
    # The first of the ports on which a node's replicas show their metrics.
    metrics_port: int = 9500

    def __post_init__(self) -> None:
        if self.settings.has_tls:
            raise ScaleError("TLS_CERT: Serve's proxies speak plain HTTP; end TLS in front of them")
        if self.settings.grpc_bind:
            raise ScaleError("GRPC_BIND: replicas speak HTTP only; gRPC is for plain servers")
        if self.settings.registry:
            raise ScaleError("REGISTRY: replicas are found through the cluster's proxies, not in a registry")

    def config(self) -> dict[str, Any]:
        """Serve's config file (https://docs.ray.io/en/latest/serve/production-guide/config.html)."""
        return {
            "proxy_location": "EveryNode" if self.entrance.on == "every-node" else "HeadOnly",
            "http_options": {"host": self.entrance.host, "port": self.entrance.port},
            "logging_config": {"encoding": "JSON", "enable_access_log": False},
            "applications": [
                {
                    "name": APPLICATION,
                    "route_prefix": "/",
                    "import_path": IMPORT_PATH,
                    "args": {
                        "settings": replica_settings(self.settings),
                        "keys": fingerprint(self.settings.api_keys),
                        "metrics_port": self.metrics_port,
                    },
                    "deployments": [self.deployment()],
                }
            ],
        }

    def deployment(self) -> dict[str, Any]:
        """Serve's options of the replicas."""
        settings, replicas = self.settings, self.replicas
        count = {"num_replicas": replicas.least} if replicas.are_fixed else {"autoscaling_config": self._autoscaling()}
        return {
            "name": DEPLOYMENT,
            **count,
            "max_ongoing_requests": settings.num_http_threads + MORE_THAN_ADMITTED,
            "graceful_shutdown_timeout_s": LEAVING_S + settings.drain_timeout_s + GRACE_S,
            "graceful_shutdown_wait_loop_s": DRAIN_LOOK_S,
            "health_check_period_s": HEALTH_PERIOD_S,
            "health_check_timeout_s": HEALTH_TIMEOUT_S,
            "ray_actor_options": {"num_cpus": replicas.num_cpus, "num_gpus": replicas.num_gpus},
        }

    def _autoscaling(self) -> dict[str, Any]:
        places = self.settings.max_running + self.settings.max_queue
        return {
            "min_replicas": self.replicas.least,
            "max_replicas": self.replicas.most,
            "target_ongoing_requests": max(1.0, places * TARGET_SHARE),
            "look_back_period_s": LOOK_BACK_S,
            "upscale_delay_s": UPSCALE_DELAY_S,
            "downscale_delay_s": DOWNSCALE_DELAY_S,
            "policy": {"policy_function": POLICY},
        }

    def environment(self) -> dict[str, str]:
        """What every Ray process needs in its environment, on each node; see docs/scale.md for the reasons."""
        longest_s = math.ceil(max(self.settings.request_timeout_s, self.settings.drain_timeout_s)) + GRACE_S
        given = {
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            # Workers run at +15 otherwise, behind everything else on the machine.
            "RAY_worker_niceness": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": str(WITHOUT_HEAD_S),
            "RAY_SERVE_PROXY_PREFER_LOCAL_NODE_ROUTING": "0",
            # The bridge never blocks the loop, and on the server's own it sees how fast a client reads.
            "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
            "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": MIDDLEWARES,
            "RAY_SERVE_REPLICA_AUTOSCALING_METRIC_PUSH_INTERVAL_S": str(PUSH_S),
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(LEAVING_S),
        }
        if self.entrance.proxy == "python":
            return given | {"RAY_SERVE_ENABLE_HA_PROXY": "0"}
        given |= {"RAY_SERVE_ENABLE_HA_PROXY": "1", "RAY_SERVE_HAPROXY_HARD_STOP_AFTER_S": str(longest_s)}
        if self.entrance.affinity is not None:
            given["RAY_SERVE_HAPROXY_BALANCE_ALGORITHM"] = f"hdr({self.entrance.affinity.lower()})"
        return given


def replica_settings(settings: Settings) -> dict[str, str]:
    """What was set, as variables that a replica reads; without what stays in each node's environment."""
    names = settings.model_fields_set - NOT_OF_A_REPLICA - SECRET - ({"model_name"} if settings.models else set())
    given = settings.model_dump(include=names)
    return {
        PREFIX + name.upper(): _absolute(value) if name in PATHS else _text(value)
        for name, value in sorted(given.items())
        if value not in (None, "")
    }


def fingerprint(api_keys: tuple[str, ...]) -> str | None:
    """Tells a replica whether its node has the keys that it should; None: everybody may come in."""
    return hashlib.sha256("\0".join(api_keys).encode()).hexdigest() if api_keys else None


def require_keys(settings: Settings, expected: str | None) -> None:
    """Raise ``SettingsError`` where a node's keys are not those of the deployment."""
    if fingerprint(settings.api_keys) != expected:
        raise SettingsError("FORKLIFT_API_KEYS on this node is not what it is where the deployment was started")


def _absolute(path: str) -> str:
    found = Path(path).expanduser()
    return str(found.resolve()) if found.exists() or found.is_absolute() else path


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def merged_environment(args: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of a replica: those of the deployment, and its node's secrets."""
    secrets = {name for name in environ if name.removeprefix(PREFIX).lower() in SECRET and name.startswith(PREFIX)}
    return {**args, **{name: environ[name] for name in secrets}}
