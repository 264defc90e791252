"""Steps that other models wait for are led to a tenth of a second, whatever a token costs."""

from __future__ import annotations

import pytest

from app.core.work.job_events import Finished
from app.engine.generation.shared_step import FIRST_TOKENS, LEAST_TOKENS, SHARED_STEP_S, SharedStep
from tests.unit.engine.driver import generator_of, greedy_job, load


@pytest.mark.parametrize("token_s", [0.01, 0.003, 0.0005, 0.00001])
def test_a_shared_step_is_led_to_its_time(token_s):
    shared = SharedStep(most_tokens=8192)
    for _ in range(12):
        shared.observe(shared.tokens, 0.002 + shared.tokens * token_s)
    fits = min(max((SHARED_STEP_S - 0.002) / token_s, LEAST_TOKENS), 8192)
    assert 0.7 * fits <= shared.tokens <= 1.05 * fits


def test_what_a_step_alone_took_counts_too():
    shared = SharedStep(most_tokens=256)
    shared.observe(256, 3.0)
    assert shared.tokens == LEAST_TOKENS


def test_a_step_that_read_little_does_not_raise_it():
    shared = SharedStep(most_tokens=256)
    shared.observe(3, 0.001)
    assert shared.tokens == FIRST_TOKENS


def test_no_step_reads_more_than_any():
    assert SharedStep(most_tokens=7).tokens == 7


def test_a_prompt_is_read_in_smaller_pieces_while_other_models_wait(model_folder):
    model = load(model_folder("qwen2"))
    prompt = [5 + at % 300 for at in range(200)]
    pieces = {}
    for is_shared in (False, True):
        generator = generator_of(model, max_running=2, chunk=256)
        lengths = pieces[is_shared] = []
        prefill = generator.runner.prefill

        def counted(row, tokens, start, prefill=prefill, lengths=lengths, **options):
            lengths.append(len(tokens))
            return prefill(row, tokens, start, **options)

        generator.runner.prefill = counted
        job = greedy_job(prompt, 2)
        generator.add(job)
        while generator.has_work:
            generator.step(is_shared=is_shared)
        assert isinstance(job.next_events(0)[-1], Finished)
    assert pieces[False] == [200]
    assert pieces[True][0] == FIRST_TOKENS and sum(pieces[True]) == 200
