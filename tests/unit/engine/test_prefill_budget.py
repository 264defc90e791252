"""A step reads as many prompt tokens as the running streams can bear, by what steps were measured to cost."""

from __future__ import annotations

import pytest

from app.engine.prefill_budget import FIRST_TOKENS, LEAST_TOKENS, STRETCH, PrefillBudget


def measured(*, decode_s: float, token_s: float, chunk_tokens: int = 256) -> PrefillBudget:
    budget = PrefillBudget(chunk_tokens)
    for _ in range(50):
        budget.observe(4, 0, decode_s)
        budget.observe(4, 50, decode_s + 50 * token_s)
    return budget


def test_the_whole_chunk_is_read_while_nothing_runs():
    assert measured(decode_s=0.01, token_s=0.1).tokens(0) == 256


def test_before_anything_was_measured_a_small_fixed_number_is_read():
    budget = PrefillBudget(256)
    assert budget.tokens(1) == FIRST_TOKENS
    budget.observe(1, 0, 0.01)
    assert budget.tokens(1) == FIRST_TOKENS


@pytest.mark.parametrize(("decode_s", "token_s"), [(0.004, 0.00006), (0.08, 0.0006), (0.006, 0.0001)])
def test_a_step_with_a_prompt_takes_a_small_multiple_of_one_without(decode_s, token_s):
    tokens = measured(decode_s=decode_s, token_s=token_s).tokens(4)
    assert LEAST_TOKENS < tokens < 256
    assert (decode_s + tokens * token_s) / decode_s == pytest.approx(STRETCH, rel=0.05)


def test_the_budget_stays_between_a_least_number_and_the_chunk():
    assert measured(decode_s=0.004, token_s=0.1).tokens(1) == LEAST_TOKENS
    assert measured(decode_s=0.1, token_s=0.00001).tokens(1) == 256
    assert measured(decode_s=0.1, token_s=0.00001, chunk_tokens=7).tokens(1) == 7


def test_steps_that_were_faster_than_usual_and_steps_without_streams_do_not_upset_it():
    budget = measured(decode_s=0.01, token_s=0.0001)
    before = budget.tokens(1)
    budget.observe(0, 256, 9.0)
    assert budget.tokens(1) == before
    budget.observe(1, 50, 0.001)
    assert before <= budget.tokens(1) <= 256
