"""Random schedules over windows, states and both: cancelled prompts and failed passes change nobody else's answer."""

from __future__ import annotations

import random

import pytest
from structlog.testing import capture_logs

from app.core.errors import RequestError
from app.core.work.job_events import Finished
from app.core.work.jobs import Job
from app.engine.generation.batched import BatchedEngine
from app.models.text_model import TextModel
from tests.unit.engine import test_states, test_windowed
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, outcome, random_prompt

pytestmark = test_states.pytestmark
MAKERS = {
    "gemma3": test_windowed.engine_of,
    "mamba2": test_states.engine_of,
    "qwen3_next": test_states.engine_of,
    "falcon_h1": test_states.engine_of,
}
QUICK = ("qwen3_next", 0)
CASES = [
    pytest.param(
        family, seed, marks=[] if (family, seed) == QUICK else [pytest.mark.chaos if seed > 1 else pytest.mark.slow]
    )
    for family in MAKERS
    for seed in range(6)
]


class Fault:
    """Has the last layer raise: in the next pass alone, or in all until it is told to stop."""

    def __init__(self, model: TextModel):
        self.num_left = 0
        model.checkpoint.model.base_model.layers[-1].register_forward_hook(self._raise)

    def _raise(self, *_: object) -> None:
        if self.num_left:
            self.num_left -= 1
            raise RuntimeError("a pass that fails")


def prompts_of(rng: random.Random) -> list[list[int]]:
    """Of which most begin as others do."""
    shared = random_prompt(rng, 70)
    tails = [random_prompt(rng, rng.choice((1, 9, 60))) for _ in range(10)]
    return [shared[: rng.choice((0, 20, 64, 70))] + tail for tail in tails]


def play(engine: BatchedEngine, jobs: list[Job], fault: Fault, rng: random.Random) -> None:
    """Jobs come, are cancelled, and passes fail, at random steps."""
    to_come, here = list(jobs), []
    while to_come or engine.has_work:
        if to_come and rng.random() < 0.5:
            here.append(to_come.pop(0))
            engine.add(here[-1])
        if here and rng.random() < 0.06:
            rng.choice(here).cancel(RequestError("gone"))
        fault.num_left = rng.choice((0,) * 20 + (1, 1, 9))
        with capture_logs():
            engine.step()
        fault.num_left = 0


@pytest.mark.parametrize(("family", "seed"), CASES)
def test_what_becomes_of_one_sequence_changes_no_other(model_folder, monkeypatch, family, seed):
    model, log, rng = load(model_folder(family)), TokenLog(monkeypatch), random.Random(seed)
    fault = Fault(model)
    engine = MAKERS[family](model, rows=4, chunk=rng.choice((11, 24, 64)))
    prompts = prompts_of(rng)
    jobs = [greedy_job(prompt, rng.randrange(2, 20)) for prompt in [*prompts, *rng.sample(prompts, 5)]]
    play(engine, jobs, fault, rng)
    num_whole = 0
    for job in jobs:
        found = log.of(job)
        expected = greedy_reference(model, job.prompt_ids, job.params.max_new_tokens, eos_token_id=None)
        assert found == expected[: len(found)]
        is_whole = isinstance(outcome(job)[1], Finished)
        assert not is_whole or found == expected
        num_whole += is_whole
    assert num_whole >= 2
    assert engine._scheduler.rows.num_free == 4
