"""Schemathesis on ``/openapi.json``: whatever is sent, no defect shows and every answer is as described."""

from __future__ import annotations

from collections import Counter

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from app.http.application.factory import create_app
from app.http.description.operations import OPERATIONS
from tests.contract.describing import RoomyModel
from tests.contract.doubles import World
from tests.thinned import as_slow

# That valid data is always taken is not among them: what two fields forbid together is in no JSON schema.
CHECKS = [
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]
OVERLOAD = 503
VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE
# Without a body there is nothing that could be invalid.
EVERY_WAY = [(*key, VALID) for key in OPERATIONS] + [(*key, INVALID) for key, one in OPERATIONS.items() if one.bodies]
# A few cases of some for every run of the suite, more of all in the slow one; 2,000 and more with `-m chaos`.
CASES = [
    *((*way, 4) for way in EVERY_WAY[::16]),
    *(as_slow((*way, 12)) for way in EVERY_WAY),
    *(pytest.param(*way, 70, marks=pytest.mark.chaos) for way in EVERY_WAY),
]


@pytest.fixture(scope="module")
def fuzzed_app():
    world = World(model=RoomyModel())
    yield create_app(world.context, ping_interval_s=1)
    world.inference.stop()


def check(case: schemathesis.Case, app: Flask, statuses: Counter[int]) -> None:
    response = case.call(app=app)
    statuses[response.status_code] += 1
    case.validate_response(response, checks=CHECKS)
    if response.status_code != OVERLOAD:
        case.validate_response(response, checks=[not_a_server_error])


@pytest.mark.parametrize(("path", "method", "mode", "num_cases"), CASES)
def test_whatever_is_sent_is_answered_as_described(fuzzed_app, path, method, mode, num_cases):
    schema = schemathesis.openapi.from_wsgi("/openapi.json", fuzzed_app)
    statuses: Counter[int] = Counter()
    strategy = schema[path][method.upper()].as_strategy(generation_mode=mode)

    @given(case=strategy)
    @settings(
        max_examples=num_cases, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
    )
    def run(case):
        check(case, fuzzed_app, statuses)

    run()
    print("cases by status:", sorted(statuses.items()))
