"""A text of JSON as it is written: which tokens would repeat a name of the same object."""

from __future__ import annotations

import pytest

from app.models.grammars.object_names import QuotedTokens, Writing, repeating

TOKENS = [
    b'"',
    b'a"',
    b'"a"',
    b'b"',
    b'": 1, "a": ',
    b'a": 1, "b": ',
    b'{"a": 1, "a"',
    b"a",
    b'\\"',
    b'\\\\"',
    b'}, {"a"',
]


def banned(text: bytes) -> set[bytes]:
    writing = Writing()
    assert writing.write(text)
    quoted = QuotedTokens(enumerate(TOKENS))
    return {TOKENS[token] for token in repeating(writing, quoted, b"\xff" * 8)}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b'{"a": 1, "',
        b'{"a": 1, "a',
        b'{"a": 1, ',
        b'{"a": "',
        b'{"a": {"',
        b'[{"a": 1}, {"',
        b'{"b": {"a": 1}, "',
        b'{"a\\"": 1, "a',
        b'{"a\\"": 1, "a\\',
        b'{"a\\"": 1, "a\\"',
        b'{"": 1, "',
        b'{"a": "\\',
    ],
)
def test_the_tokens_that_are_banned_are_those_that_would_repeat_a_name(text):
    writing = Writing()
    writing.write(text)
    assert banned(text) == {token for token in TOKENS if b'"' in token and not writing.trial().write(token)}


def test_a_name_that_was_written_cannot_be_ended_again():
    assert b'"' in banned(b'{"a": 1, "a')
    assert b'a"' in banned(b'{"a": 1, "')
    assert b'"a"' in banned(b'{"a": 1, ')
    assert b'"' not in banned(b'{"a": 1, "b')
    assert b'"' not in banned(b'{"a": "a')


def test_a_name_is_repeated_only_within_its_own_object():
    assert Writing().write(b'{"a": [{"a": 1}, {"a": 2}], "b": {"a": "a"}}')
    assert not Writing().write(b'{"a": [{"a": 1}], "a"')
    assert not Writing().write(b'[{"x": {"y": 1}, "x"')


def test_a_trial_changes_nothing():
    writing = Writing()
    writing.write(b'{"a": 1, "')
    assert writing.trial().write(b'b": 1, "c')
    assert writing.open == [{b"a"}]
    assert writing.write(b'b"')
