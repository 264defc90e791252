"""Schemas made at random: each gives valid values, or is refused with 400; nothing else happens."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.core.errors import BadRequestError
from app.models.json_schemas.emission import plain_schema
from app.models.json_schemas.nodes import FOLLOWED
from tests.unit.models.json_schemas.sampled import compiled, constraints, judge, write

NAMES = st.sampled_from(["a", "b", "kind", 'q"uote', "é", ""])
SCALARS = st.none() | st.booleans() | st.integers(-20, 20) | st.sampled_from(["a", "b", "", 'x"y', "\n", 0.5, -1.25])
SMALL = st.integers(0, 4)
NUMBERS = st.integers(-20, 20) | st.sampled_from([0.5, -1.5, 2.25])
PATTERNS = st.sampled_from(["^a", "b$", "^[a-c]+$", "^x-", "[0-9]", "^(a|b)$", "^a?$"])


def _some(**parts: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=parts)


def _deeper(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        _some(
            type=st.just("object"),
            properties=st.dictionaries(NAMES, inner, max_size=3),
            required=st.lists(NAMES, max_size=2),
            additionalProperties=inner,
            patternProperties=st.dictionaries(PATTERNS, inner, max_size=2),
            propertyNames=st.fixed_dictionaries({"pattern": PATTERNS})
            | st.fixed_dictionaries({"enum": st.lists(NAMES, max_size=3)}),
            minProperties=SMALL,
            maxProperties=SMALL,
        ),
        _some(type=st.just("array"), items=inner, prefixItems=several, minItems=SMALL, maxItems=SMALL),
        _some(anyOf=several),
        _some(allOf=several),
        _some(oneOf=several, type=st.sampled_from(["object", "string", "integer"])),
    )


LEAVES = st.one_of(
    st.booleans(),
    _some(
        type=st.sampled_from(
            ["string", "null", "boolean", "integer", "number", ["string", "null"], ["integer", "object"]]
        )
    ),
    _some(const=SCALARS),
    _some(enum=st.lists(SCALARS | st.lists(SCALARS, max_size=2), min_size=1, max_size=4)),
    _some(type=st.just("string"), minLength=SMALL, maxLength=SMALL, pattern=PATTERNS),
    _some(type=st.just("string"), format=st.sampled_from(["date", "time", "ipv4", "uuid", "byte"])),
    _some(
        type=st.sampled_from(["integer", "number"]),
        minimum=NUMBERS,
        maximum=NUMBERS,
        exclusiveMinimum=NUMBERS,
        exclusiveMaximum=NUMBERS,
        multipleOf=st.sampled_from([1, 2, 3, 0.5, 0.25, 7]),
    ),
    st.sampled_from([{"$ref": "#"}, {"$ref": "#/$defs/d"}]),
)
SCHEMAS = st.recursive(LEAVES, _deeper, max_leaves=8)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """A schema with a definition that may refer to itself and to the whole."""
    root = draw(SCHEMAS)
    return {**(root if isinstance(root, dict) else {}), "$defs": {"d": draw(SCHEMAS)}}


WORDS = st.sampled_from(sorted(FOLLOWED | {"not", "if", "contains", "x-a", "title"}))
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=130) | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)


@pytest.fixture(scope="module")
def owner():
    made = constraints()
    yield made
    made.close()


QUICK = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@settings(max_examples=60, deadline=None, suppress_health_check=QUICK)
@given(schema=documents())
def test_a_random_schema_gives_valid_values_or_is_refused(owner, schema):
    try:
        grammar = compiled(owner, schema)
    except BadRequestError:
        return
    for seed in range(2):
        if (text := write(grammar, seed, 200)) is not None:
            judge(text, schema)


@pytest.mark.chaos
@settings(max_examples=2000, deadline=None, suppress_health_check=QUICK)
@given(schema=documents())
def test_many_random_schemas_give_valid_values_or_are_refused(owner, schema):
    test_a_random_schema_gives_valid_values_or_is_refused.hypothesis.inner_test(owner, schema)


@settings(max_examples=400, deadline=None, suppress_health_check=QUICK)
@given(schema=JUNK)
def test_whatever_stands_in_a_schema_is_read_or_refused(schema):
    try:
        plain_schema(schema)
    except BadRequestError as error:
        assert error.message.startswith("#")
