"""Parameters of which the default suite takes a few and ``make test-slow`` the rest."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from _pytest.mark import ParameterSet


def few_of(values: Iterable[Any], number: int) -> list[Any]:
    """``values`` for ``parametrize``: ``number`` of them, evenly spread, stay; the others become slow tests."""
    found = list(values)
    kept = {at * len(found) // number for at in range(number)}
    return [value if at in kept else as_slow(value) for at, value in enumerate(found)]


def as_slow(value: Any) -> ParameterSet:
    """A parameter, or a tuple of several, whose test is left to the slow suite."""
    if isinstance(value, ParameterSet):
        return pytest.param(*value.values, marks=[*value.marks, pytest.mark.slow], id=value.id)
    return pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.slow)
