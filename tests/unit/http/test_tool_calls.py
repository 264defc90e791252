"""Tool calls in a completion, whole and in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.http.tool_calls import ToolCallFilter, split_calls

CALL = '<tool_call>\n{"name": "f", "arguments": {"city": "Köln"}}\n</tool_call>'


def functions(calls):
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


def test_text_and_calls_are_told_apart():
    text, calls = split_calls(f"Let me see.\n{CALL}\n{CALL}")
    assert text == "Let me see."
    assert functions(calls) == [("f", {"city": "Köln"})] * 2
    assert len({call["id"] for call in calls}) == 2


def test_a_completion_that_is_only_a_call_has_no_text():
    text, calls = split_calls(CALL)
    assert text == "" and len(calls) == 1


@pytest.mark.parametrize("inside", ["", "{", "[]", "5", '{"name": 5}', '{"name": "f", "arguments": "x"}', "[" * 5000])
def test_what_is_no_call_stays_text(inside):
    whole = f"a <tool_call>{inside}</tool_call> b"
    assert split_calls(whole) == (whole, [])


def test_a_call_that_was_cut_off_stays_text():
    assert split_calls(CALL[:30]) == (CALL[:30], [])


def test_a_call_may_lack_its_closing_tag_and_its_arguments():
    assert functions(split_calls('<tool_call>{"name": "f"}')[1]) == [("f", {})]


@given(st.sampled_from(["x" + CALL, "a < b <tool", "<tool_call>no", CALL + CALL, "a\n\n" + CALL]), st.data())
def test_pieces_bring_the_same_calls_and_no_tag_as_text(whole, data):
    parts, at, text = ToolCallFilter(), 0, ""
    while at < len(whole):
        size = data.draw(st.integers(1, 9))
        text += parts.push(whole[at : at + size])
        at += size
    rest, calls = parts.finish()
    expected_text, expected = split_calls(whole)
    assert functions(calls) == functions(expected)
    assert (text + rest).strip() == expected_text.strip()
