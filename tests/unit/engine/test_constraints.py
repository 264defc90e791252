"""Whatever a random model prefers, constrained output matches its schema or pattern."""

from __future__ import annotations

import json
import os
import re
import signal

import pytest

from app.core.errors import BadRequestError, ConstraintTooCostlyError, UnsupportedParameterError
from app.core.work.job_events import Failed, Finished
from app.core.work.jobs import Job
from app.core.work.sampling_params import Constraint, SamplingParams
from app.engine.generation.serial import SerialEngine
from app.models.grammars import running_grammar
from app.models.text_model import TextModel
from tests.unit.engine.driver import generator_of, load, outcome, run

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
JSON = Constraint("json_schema", json.dumps(SCHEMA))
DATE = Constraint("regex", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
HOLE_END = 4


@pytest.fixture(scope="module")
def model(model_folder):
    loaded = load(model_folder("qwen2"))
    yield loaded
    loaded.constraints.close()


def job_of(model: TextModel, constraint: Constraint | None, num_new: int = 80, **params: object) -> Job:
    grammar = None if constraint is None else model.constraints.compiled(constraint)
    return Job("constrained", [30, 31, 32], SamplingParams(num_new, grammar=grammar, **params))


@pytest.mark.parametrize("drafts", [0, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_output_in_a_mixed_batch_matches(model, drafts, temperature):
    jobs = [job_of(model, JSON, temperature=temperature, seed=seed) for seed in range(4)]
    dates = [job_of(model, DATE, temperature=temperature, seed=seed) for seed in range(4)]
    free = job_of(model, None, temperature=temperature)
    run(generator_of(model, max_running=5, drafts=drafts), *jobs, free, *dates)
    for job in jobs:
        text, end = outcome(job)
        assert end == Finished("stop")
        found = json.loads(text)
        assert set(found) == {"name", "age"}
        assert 0 <= found["age"] <= 99
    for job in dates:
        assert re.fullmatch(DATE.source, outcome(job)[0])


def test_the_fallback_follows_the_constraint_too(model):
    job = job_of(model, DATE, temperature=1.0, seed=3)
    run(SerialEngine(model), job)
    assert re.fullmatch(DATE.source, outcome(job)[0])


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("regex", "(unclosed"),
        Constraint("regex", "(" * 2000 + ")" * 2000),
        Constraint("regex", "((a{1000}){1000}){1000}"),
        Constraint("json_schema", '{"type": "no"}'),
        Constraint("json_schema", '{"$ref": "#"}'),
        Constraint("json_schema", '{"$ref": "file:///etc/passwd"}'),
        Constraint("json_schema", '{"not": ' * 200 + "{}" + "}" * 200),
    ],
    ids=lambda constraint: constraint.source[:20],
)
def test_what_cannot_be_followed_is_refused_before_it_starts(model, constraint):
    with pytest.raises(BadRequestError):
        model.constraints.compiled(constraint)


@pytest.mark.parametrize("generator", [generator_of, SerialEngine])
def test_a_grammar_whose_process_ends_fails_its_own_jobs_only(model, generator):
    pattern = Constraint("regex", "[a-z]{40}")
    lost, other = job_of(model, pattern), job_of(model, DATE)
    os.kill(lost.params.grammar.pid, signal.SIGKILL)
    run(generator(model), lost, other)
    end = outcome(lost)[1]
    assert isinstance(end, Failed) and isinstance(end.error, ConstraintTooCostlyError)
    assert re.fullmatch(DATE.source, outcome(other)[0])
    again = job_of(model, pattern)
    run(generator(model), again)
    assert re.fullmatch(pattern.source, outcome(again)[0])


def test_a_grammar_that_uses_up_its_processor_time_fails(model, monkeypatch):
    monkeypatch.setattr(running_grammar, "MAX_SAVED_S", -1.0)
    job = job_of(model, Constraint("regex", "[a-y]{40}"))
    run(generator_of(model), job)
    end = outcome(job)[1]
    assert isinstance(end, Failed) and isinstance(end.error, ConstraintTooCostlyError)
    assert end.error.param == "regex"


@pytest.mark.parametrize("generator", [generator_of, SerialEngine])
def test_where_a_constraint_allows_the_end_every_token_that_ends_the_sequence_is_allowed(model, generator):
    likes_the_end = {"logit_bias": ((HOLE_END, 1000.0),), "stop_token_ids": frozenset({HOLE_END})}
    job = job_of(model, Constraint("regex", r"(.|\n)*"), 40, **likes_the_end)
    run(generator(model), job)
    assert outcome(job) == ("", Finished("stop"))
    assert job.usage.completion_tokens == 1


def test_where_a_constraint_does_not_allow_the_end_no_token_that_ends_the_sequence_is_chosen(model):
    likes_the_end = {"logit_bias": ((HOLE_END, 1000.0),), "stop_token_ids": frozenset({HOLE_END})}
    job = job_of(model, DATE, 40, **likes_the_end)
    run(generator_of(model), job)
    text, end = outcome(job)
    assert re.fullmatch(DATE.source, text)
    assert end == Finished("stop")


def test_a_tokenizer_that_cannot_be_constrained_says_so(model_folder, monkeypatch):
    slow = load(model_folder("qwen2"))
    monkeypatch.setattr(slow.constraints, "_end_ids", [])
    with pytest.raises(UnsupportedParameterError):
        slow.constraints.compiled(DATE)
