"""JSON is read strictly; whatever the bytes are, the outcome is an object or ``InvalidJsonError``."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import InvalidJsonError
from app.http.reading.strict_json import dump, parse_object

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=10,
)


@pytest.mark.slow
@given(st.dictionaries(TEXT, VALUES), st.booleans())
def test_what_is_legal_comes_through_unchanged(value, ascii_only):
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value
    assert parse_object(dump(value).encode()) == value


@given(st.binary())
def test_no_bytes_raise_anything_else(raw):
    try:
        assert isinstance(parse_object(raw), dict)
    except InvalidJsonError as error:
        assert error.message


@pytest.mark.parametrize("depth", [500, 990, 1_000, 5_000, 100_000])
def test_nesting_never_overflows_the_stack(depth):
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        raw = '{"a": "\\u0061", "b": ' + opening * depth + "1" + closing * depth + "}"
        try:
            parse_object(raw.encode())
        except InvalidJsonError as error:
            assert "nested" in error.message


@pytest.mark.parametrize("text", ["1e999", "-1e999", "NaN", "Infinity", "-Infinity", "1" * 400])
def test_numbers_are_finite(text):
    with pytest.raises(InvalidJsonError):
        parse_object(f'{{"a": [{text}]}}'.encode())


def test_one_line_of_json_has_no_raw_line_break():
    assert "\n" not in dump({"a": "x\ny\r\n"}) and "\r" not in dump({"a": "x\r"})


@pytest.mark.parametrize(
    "raw",
    ['{"a": 1, "a": 2}', '{"m": [{"x": {"b": 1, "\\u0062": 1}}]}', '{"a": 1, "b": 2, "a": null}', '{"": 1, "": 1}'],
)
def test_a_key_that_comes_twice_is_refused_by_name_at_every_depth(raw):
    with pytest.raises(InvalidJsonError, match=r"the key '[ab]?' comes twice"):
        parse_object(raw.encode())


def test_the_same_key_in_two_objects_is_fine():
    assert parse_object(b'{"a": {"a": 1}, "b": {"a": 1}}') == {"a": {"a": 1}, "b": {"a": 1}}
