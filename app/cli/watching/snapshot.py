"""One look at a server: its slots from ``/readyz``, its numbers from ``/metrics``."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from app.cli.server_connection import CommandError, Server, told
from app.client import ForeignAnswerError

PREFIX = "forklift_"
WATCHED = ("/livez", "/readyz", "/metrics")
TIMEOUT_S = 2.0
Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class Snapshot:
    """``values`` maps a sample's name without prefix and its labels to its value; empty where metrics were refused.

    ``instances``: which replicas of a cluster answered, where it was one.
    """

    at_s: float
    state: str
    progress: float
    slots: list[dict[str, Any]]
    values: Mapping[tuple[str, Labels], float] = field(default_factory=dict)
    refused: str | None = None
    models: list[dict[str, Any]] = field(default_factory=list)
    instances: frozenset[str] = frozenset()

    @property
    def is_unregistered(self) -> bool:
        """Whether the server has a registry, which does not answer."""
        return any(name == "registry_connected" and not value for (name, _), value in self.values.items())

    def total(self, name: str) -> float:
        """The sum of a metric over all its labels."""
        return sum(value for (found, _), value in self.values.items() if found == name)

    def of_slot(self, name: str, slot: int) -> float | None:
        """A gauge of one slot."""
        return self.values.get((name, frozenset({("slot", str(slot))})))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Sums of a metric for each value of one of its labels."""
        sums: dict[str, float] = {}
        for (found, labels), value in self.values.items():
            if found == name and label in (fields := dict(labels)):
                sums[fields[label]] = sums.get(fields[label], 0.0) + value
        return sums

    def buckets(self, name: str) -> dict[float, float]:
        """Cumulative counts of a histogram by upper bound."""
        found = self.by(f"{name}_bucket", "le").items()
        return {float(bound): count for bound, count in found if _is_number(bound)}


def look(server: Server) -> Snapshot:
    """Ask the server. Raises ``CommandError`` where it does not answer as a Forklift server does."""
    ready = server.get("/readyz", TIMEOUT_S)
    try:
        body = ready.json()
        state, progress, slots = str(body["state"]), float(body["progress"]), [_slot(row) for row in body["slots"]]
        models = [_model(row) for row in body.get("engines") or ()]
    except (ForeignAnswerError, ValueError, KeyError, TypeError, AttributeError, OverflowError):
        raise CommandError(f"{ready.url} answered {ready.status}, and no JSON of slots") from None
    metrics = server.get("/metrics", TIMEOUT_S)
    instances = frozenset(one.headers["X-Instance"] for one in (ready, metrics) if "X-Instance" in one.headers)
    made = partial(Snapshot, time.monotonic(), state, progress, slots, models=models, instances=instances)
    if metrics.status != 200:
        return made(refused=f"{metrics.status}: {told(metrics)}")
    try:
        return made(parse(metrics.data.decode("utf-8", "replace")))
    except ValueError:
        return made(refused=f"they are none: {metrics.beginning()}")


def _model(row: Any) -> dict[str, Any]:
    """A model with values of the kinds that are shown; older servers say less. Raises as ``_slot``."""
    texts = {name: str(row.get(name) or "") for name in ("task", "state", "engine")}
    flags = {name: row.get(name) is True for name in ("compiled", "compiling")}
    return {"model": str(row["model"]), **texts, **flags, "dropped": [str(one) for one in row.get("dropped") or ()]}


def _slot(row: Any) -> dict[str, Any]:
    """A row with values of the kinds that are shown. Raises KeyError, TypeError, ValueError."""
    numbers = {name: int(row[name]) for name in ("slot", "num_running", "num_waiting")}
    gpus = [str(label) for label in row.get("gpus") or ()]
    return {**numbers, "state": str(row["state"]), "pid": row.get("pid"), "gpus": gpus}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def parse(text: str) -> dict[tuple[str, Labels], float]:
    """Forklift's own samples of Prometheus' text format, without requests of those who watch: they are no work.

    Raises ValueError.
    """
    return {
        (sample.name.removeprefix(PREFIX), frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name.startswith(PREFIX) and sample.labels.get("route") not in WATCHED
    }


def quantile(buckets: Mapping[float, float], share: float) -> float | None:
    """The value below which ``share`` of 1 lie, interpolated within its bucket as Prometheus does; None for no counts.

    Above the last finite bound that bound is answered.
    """
    bounds = sorted(buckets)
    if not bounds or not buckets[bounds[-1]]:
        return None
    wanted = share * buckets[bounds[-1]]
    below, low = 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / max(buckets[bound] - below, 1e-12)
        below, low = buckets[bound], bound
    return low
