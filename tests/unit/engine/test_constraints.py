"""Whatever a random model prefers, constrained output matches its schema or pattern."""

from __future__ import annotations

import json
import re

import pytest

from app.core.errors import InvalidParameterError, UnsupportedParameterError
from app.core.jobs import Constraint, Failed, Finished, Job, SamplingParams
from app.engine.fallback import GenerateGenerator
from tests.unit.engine.driver import generator_of, load, outcome, run

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
JSON = Constraint("json_schema", json.dumps(SCHEMA))
DATE = Constraint("regex", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@pytest.fixture(scope="module")
def model(model_folder):
    return load(model_folder("qwen2"))


def job_of(constraint: Constraint | None, **params: object) -> Job:
    return Job("constrained", [30, 31, 32], SamplingParams(80, constraint=constraint, **params))


@pytest.mark.parametrize("drafts", [0, 4])
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_output_in_a_mixed_batch_matches(model, drafts, temperature):
    jobs = [job_of(JSON, temperature=temperature, seed=seed) for seed in range(4)]
    dates = [job_of(DATE, temperature=temperature, seed=seed) for seed in range(4)]
    free = job_of(None, temperature=temperature)
    run(generator_of(model, num_slots=5, drafts=drafts), *jobs, free, *dates)
    for job in jobs:
        text, end = outcome(job)
        assert end == Finished("stop")
        found = json.loads(text)
        assert set(found) == {"name", "age"}
        assert 0 <= found["age"] <= 99
    for job in dates:
        assert re.fullmatch(DATE.source, outcome(job)[0])


def test_the_fallback_follows_the_constraint_too(model_folder):
    job = job_of(DATE, temperature=1.0, seed=3)
    run(GenerateGenerator(load(model_folder("qwen2"))), job)
    assert re.fullmatch(DATE.source, outcome(job)[0])


@pytest.mark.parametrize(
    "constraint",
    [
        Constraint("regex", "(unclosed"),
        Constraint("regex", "(" * 2000 + ")" * 2000),
        Constraint("json_schema", '{"type": "no"}'),
        Constraint("json_schema", '{"$ref": "#"}'),
        Constraint("json_schema", '{"$ref": "file:///etc/passwd"}'),
        Constraint("json_schema", '{"not": ' * 200 + "{}" + "}" * 200),
    ],
    ids=lambda constraint: constraint.source[:20],
)
def test_what_cannot_be_followed_is_refused_before_it_starts(model, constraint):
    with pytest.raises(InvalidParameterError):
        model.constraints.check(constraint)


@pytest.mark.parametrize("generator", [generator_of, GenerateGenerator])
def test_a_pattern_that_outgrows_its_limits_fails_its_own_job_only(model_folder, generator):
    # Passes the check: how large its automaton is shows only while it is followed.
    bomb = job_of(Constraint("regex", "((a{1000}){1000}){1000}"))
    other = job_of(DATE)
    run(generator(load(model_folder("qwen2"))), bomb, other)
    end = outcome(bomb)[1]
    assert isinstance(end, Failed) and isinstance(end.error, InvalidParameterError)
    assert re.fullmatch(DATE.source, outcome(other)[0])


def test_what_can_be_followed_passes_the_check(model):
    model.constraints.check(JSON)
    model.constraints.check(DATE)


def test_a_tokenizer_that_cannot_be_constrained_says_so(model_folder, monkeypatch):
    slow = load(model_folder("qwen2"))
    monkeypatch.setattr(slow.constraints, "_end_ids", [])
    with pytest.raises(UnsupportedParameterError):
        slow.constraints.check(DATE)
