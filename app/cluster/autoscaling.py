"""How many replicas the load wants: so many that their places are taken to a certain share. Serve's controller runs it.

Serve's own policy counts requests, and a request may be refused, a probe, or a hundred sequences.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

PLACES = "places"


class ScalingConfig(Protocol):
    def get_target_ongoing_requests(self) -> float: ...


class ScalingContext(Protocol):
    """What is used of Serve's ``AutoscalingContext``."""

    @property
    def current_num_replicas(self) -> int: ...

    @property
    def aggregated_metrics(self) -> Mapping[str, Mapping[Any, float]] | None: ...

    @property
    def config(self) -> ScalingConfig: ...


def by_places(context: ScalingContext) -> tuple[float, dict[str, Any]]:
    """The number of replicas that is wanted; Serve keeps it within its bounds and waits its delays.

    A deployment that has not told of any place yet stays as it is.
    """
    taken = (context.aggregated_metrics or {}).get(PLACES)
    if not taken:
        return float(context.current_num_replicas), {}
    return sum(taken.values()) / context.config.get_target_ongoing_requests(), {}
