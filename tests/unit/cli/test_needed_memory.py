"""What `forklift check` says that workers need: weights once where they share pages, else for each."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from app.cli.checking.model import WORKER_BYTES, needed_bytes
from app.models.forecast import Footprint


def plan(pack_weights: str, load: str = "resident") -> SimpleNamespace:
    return SimpleNamespace(load=load, settings=SimpleNamespace(pack_weights=pack_weights))


@pytest.mark.parametrize(
    ("pack_weights", "is_mapped", "weights"),
    [("auto", True, 1), ("never", True, 1), ("always", True, 2), ("auto", False, 2)],
)
def test_weights_count_for_each_of_two_workers_unless_they_share_them(pack_weights, is_mapped, weights):
    found = needed_bytes([(plan(pack_weights), Footprint(1000, 10, is_mapped))], 2)
    assert found == weights * 1000 + 2 * (10 + WORKER_BYTES)


def test_of_models_that_are_loaded_on_demand_the_largest_counts():
    small, large = Footprint(1000, 10, True), Footprint(3000, 20, True)
    found = needed_bytes([(plan("auto", "demand"), large), (plan("auto", "demand"), small)], 1)
    assert found == 3020 + WORKER_BYTES
