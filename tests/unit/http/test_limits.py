"""How many tokens a request may generate, for every size of prompt and context."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import BadRequestError, InvalidParameterError
from app.core.settings import Settings
from app.http.application.connection import HttpCaller
from app.http.requests.limits import Deadlines, num_new_tokens, parse_seconds
from app.http.schemas.native_bodies import ChatBody, CompleteBody

SETTINGS = Settings(model="m", max_new_tokens=50, default_new_tokens=20, queue_timeout_s=30, request_timeout_s=300)


@given(st.integers(0, 80), st.integers(2, 70), st.none() | st.integers(1, 80))
def test_what_is_granted_fits_and_is_what_was_asked_for(num_prompt, context_tokens, wanted):
    body = CompleteBody(prompt="a", max_new_tokens=wanted)
    try:
        granted = num_new_tokens(body, num_prompt, context_tokens, SETTINGS)
    except BadRequestError as error:
        assert error.param == "prompt"
        assert num_prompt == 0 or num_prompt + 1 > context_tokens
    else:
        assert 1 <= granted <= context_tokens - num_prompt
        assert granted == min(wanted or 20, context_tokens - num_prompt, 50)


@given(st.integers(1, 80), st.integers(2, 70), st.integers(1, 100))
def test_max_length_bounds_the_sum(num_prompt, context_tokens, max_length):
    body = ChatBody(prompt="a", max_length=max_length)
    try:
        granted = num_new_tokens(body, num_prompt, context_tokens, SETTINGS)
    except BadRequestError:
        assert max_length <= num_prompt or num_prompt >= context_tokens
    else:
        assert granted == min(max_length - num_prompt, context_tokens - num_prompt, 50)


@pytest.mark.parametrize(("header", "seconds"), [("1", 1.0), ("0.5", 0.5), (" 20 ", 20.0), ("007", 7.0)])
def test_plain_seconds_are_read(header, seconds):
    assert parse_seconds(header) == seconds


@pytest.mark.parametrize("header", ["", "0", "0.0", "-1", "+1", "1e3", "nan", ".5", "5.", "1,5", "٣", "1\n2"])
def test_everything_else_is_refused(header):
    with pytest.raises(InvalidParameterError):
        parse_seconds(header)


def test_without_a_header_the_callers_own_limit_is_unknown():
    assert HttpCaller("r", {}).own_limit_s() is None
    assert HttpCaller("r", {"HTTP_X_REQUEST_TIMEOUT_S": "5"}).own_limit_s() == 5.0


def test_the_callers_own_limit_shortens_the_servers():
    now_s = time.monotonic()
    assert Deadlines.from_now(SETTINGS, None).total_s >= now_s + SETTINGS.request_timeout_s
    deadlines = Deadlines.from_now(SETTINGS, 5.0)
    assert deadlines.own_s == 5.0
    assert now_s + 5 <= deadlines.queue_s == deadlines.total_s <= time.monotonic() + 5
