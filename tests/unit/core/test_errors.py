"""Each class of error owns what a caller is told beside its text."""

from __future__ import annotations

import pytest

from app.core.errors import OverloadedError, ShuttingDownError, UnavailableError
from app.http.description.openapi import error_classes

UNAVAILABLE = [one for one in error_classes() if issubclass(one, UnavailableError)]


@pytest.mark.parametrize("kind", UNAVAILABLE, ids=lambda kind: kind.__name__)
def test_each_503_says_after_how_many_seconds_to_try_again(kind):
    assert int(kind("not now").headers()["Retry-After"]) >= 1


@pytest.mark.parametrize(("given_s", "told"), [(7, "7"), (0, "1")])
def test_whoever_knows_better_gives_the_seconds_and_one_is_the_least(given_s, told):
    assert OverloadedError("full", retry_after_s=given_s).headers()["Retry-After"] == told


def test_a_number_that_one_error_was_given_is_its_own():
    OverloadedError("full", retry_after_s=7)
    assert OverloadedError("full").headers()["Retry-After"] == "1"


def test_every_kind_of_503_is_looked_at():
    assert ShuttingDownError in UNAVAILABLE
    assert len(UNAVAILABLE) == 8
