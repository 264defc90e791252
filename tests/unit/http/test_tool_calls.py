"""Tool calls in a completion, whole and in pieces."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.http.answers.tool_calls import ToolCallFilter, split_calls

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


def call_of(arguments: str, name: str = "f") -> str:
    return f'<tool_call>{{"name": "{name}", "arguments": {arguments}}}</tool_call>'


HOSTILE = [
    "The <tool_call> tag starts a call.\n" + CALL,
    "Write <tool_call>{ and so on. " + CALL + " Done.",
    call_of('{"a": "x\\ud83d"}'),
    call_of('{"a": "</tool_call>", "b": "<tool_call>{"}') + " tail \n",
    call_of("{}") + "\n" + call_of("{}", "g") + "\n",
    "<tool_call>" + '{"name": "f"}' + "\n" + '{"name": "g"}' + "</tool_call>",
    "<tool_call>{<tool_call>[<tool_call>" + CALL,
    call_of('{"a": "b"}')[:-15] + " and text",
    "  \n" + CALL + " b \n",
    "no call at all \n ",
]


@given(st.sampled_from(["x" + CALL, "a < b <tool", "<tool_call>no", CALL + CALL, "a\n\n" + CALL, *HOSTILE]), st.data())
def test_pieces_bring_the_same_text_and_calls_as_the_whole(whole, data):
    parts, at, text = ToolCallFilter(), 0, ""
    while at < len(whole):
        size = data.draw(st.integers(1, 9))
        text += parts.push(whole[at : at + size])
        at += size
    rest, calls = parts.finish()
    expected_text, expected = split_calls(whole)
    assert functions(calls) == functions(expected)
    assert text + rest == expected_text


@given(st.text('{}[]",:<tool_call>/\\ 0aeNu\n', max_size=80))
def test_whatever_a_model_writes_comes_out_as_text_or_as_calls(text):
    shown, calls = split_calls(text)
    assert calls or shown == text
    for call in calls:
        assert isinstance(strictly(call["function"]["arguments"]), dict)


def strictly(text: str) -> object:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text.encode("utf-8"), parse_constant=refuse)


def arguments_of(whole: str) -> str:
    [call] = split_calls(whole)[1]
    return call["function"]["arguments"]


def test_text_that_names_the_tag_hides_no_call():
    text, calls = split_calls(f"The <tool_call> tag starts a call. {CALL}")
    assert text == "The <tool_call> tag starts a call."
    assert functions(calls) == [("f", {"city": "Köln"})]


def test_text_behind_a_tag_that_is_no_call_goes_out_at_once():
    parts = ToolCallFilter()
    assert parts.push("see <tool_call> in") == "see <tool_call> in"
    assert parts.push(" and <tool_call>{no") == " and <tool_call>{no"


def test_tags_inside_strings_are_part_of_the_arguments():
    text, calls = split_calls(call_of('{"a": "</tool_call>", "b": "<tool_call>{"}'))
    assert (text, functions(calls)) == ("", [("f", {"a": "</tool_call>", "b": "<tool_call>{"})])


@pytest.mark.parametrize(
    "inside",
    [
        '{"name": "f", "parameters": {"a": 1}}',
        '{"name": "f", "arguments": "{\\"a\\": 1}"}',
        '{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}',
    ],
)
def test_arguments_under_other_names_and_as_text_are_found(inside):
    assert functions(split_calls(f"<tool_call>{inside}</tool_call>")[1]) == [("f", {"a": 1})]


def test_half_a_surrogate_pair_stays_an_escape():
    arguments = arguments_of(call_of('{"a": "x\\ud83d", "b": "\\ud83d\\ude00"}'))
    assert arguments == '{"a": "x\\ud83d", "b": "\U0001f600"}'
    [call] = split_calls(call_of("{}", "f\\ud83d"))[1]
    assert call["function"]["name"] == "f\ufffd"


def test_numbers_stay_as_they_were_written():
    assert arguments_of(call_of('{"a": [12345678901234567.89, 1E999, -0.10]}')) == (
        '{"a": [12345678901234567.89, 1E999, -0.10]}'
    )
    assert arguments_of(call_of('{"a": ' + "7" * 900 + "}")) == '{"a": ' + "7" * 900 + "}"


def test_what_json_has_not_comes_out_as_json():
    arguments = arguments_of(call_of('{"a": NaN, "b": [-Infinity], "c": "x\ny", "d": 1, "d": 2}'))
    assert arguments == '{"a": null, "b": [null], "c": "x\\ny", "d": 2}'
    assert strictly(arguments)


@pytest.mark.parametrize("depth", [100, 100_000])
def test_arguments_that_are_nested_without_end_are_text(depth):
    for inside in ('{"a": ' * depth + "1" + "}" * depth, '"' + '{\\"a\\":' * depth + "1" + "}" * depth + '"'):
        whole = call_of(inside)
        assert split_calls(whole) == (whole, [])
