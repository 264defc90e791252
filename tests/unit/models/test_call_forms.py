"""Every form of tool calls, in the notation that its family publishes, whole and cut anywhere."""

from __future__ import annotations

import json

import pytest

from app.core.parsing.tool_calls.answer_parts import Arguments, CallStart, Content
from app.core.parsing.tool_calls.answer_reader import AnswerForm, AnswerReader, read_whole
from app.core.parsing.tool_calls.choosing import CALL_FORMS
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.http.answers.chat_parts import merged
from tests.thinned import few_of
from tests.unit.models.call_notations import LAST_WORD, NOTATIONS, TOOLS, completions, each_notation, unfinished


def form_of(notation: str) -> AnswerForm:
    return AnswerForm(CALL_FORMS[NOTATIONS[notation][0]], None, KnownTools(TOOLS))


def pieces(parts):
    """The parts with neighbours together: where a text is cut says nothing."""
    return merged(parts)


def streamed(text: str, form: AnswerForm, *cuts: int):
    reader, parts, start = AnswerReader(form), [], 0
    for end in (*cuts, len(text)):
        parts += reader.push(text[start:end])
        start = end
    return pieces(parts + reader.finish())


def content_of(parts) -> str:
    return "".join(part.text for part in parts if isinstance(part, Content))


def calls_of(parts) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for part in parts:
        if isinstance(part, CallStart):
            found.append((part.name, ""))
        elif isinstance(part, Arguments):
            found[-1] = (found[-1][0], found[-1][1] + part.text)
    return found


def expected_calls(segments):
    return [call for segment in segments if not isinstance(segment, str) for call in segment]


def expected_content(segments) -> str:
    return "".join(segment.rstrip() for segment in segments if isinstance(segment, str))


def test_there_are_fifty_completions():
    assert len(completions()) >= 50


@pytest.mark.parametrize("notation", NOTATIONS)
def test_no_call_is_lost_and_nothing_of_one_is_content(notation):
    write = NOTATIONS[notation][1]
    for segments in completions():
        parts = read_whole(write(segments), form_of(notation))
        assert [(name, json.loads(text)) for name, text in calls_of(parts)] == expected_calls(segments)
        assert content_of(parts) == expected_content(segments)


@pytest.mark.parametrize("notation", each_notation(NOTATIONS))
def test_sign_by_sign_brings_what_the_whole_brings(notation):
    form = form_of(notation)
    for segments in completions() + unfinished():
        text = NOTATIONS[notation][1](segments)
        assert streamed(text, form, *range(1, len(text))) == pieces(read_whole(text, form))


def cut_everywhere(notation: str, some_completions) -> None:
    form = form_of(notation)
    for segments in some_completions:
        text = NOTATIONS[notation][1](segments)
        expected = pieces(read_whole(text, form))
        for cut in range(1, len(text)):
            assert streamed(text, form, cut) == expected, (text, cut)


@pytest.mark.parametrize("notation", few_of(each_notation(NOTATIONS), 8))
def test_a_stream_of_two_pieces_brings_what_the_whole_brings(notation):
    cut_everywhere(notation, [*completions()[18:20], *unfinished()[2:]])


@pytest.mark.chaos
@pytest.mark.parametrize("notation", NOTATIONS)
def test_every_completion_cut_at_every_position_brings_what_the_whole_brings(notation):
    cut_everywhere(notation, completions() + unfinished())


@pytest.mark.parametrize("notation", NOTATIONS)
def test_an_unfinished_call_is_a_call_with_what_there_is_of_its_arguments(notation):
    for segments in unfinished():
        text = NOTATIONS[notation][1](segments)
        parts = read_whole(text[: text.rindex(LAST_WORD) + len(LAST_WORD)], form_of(notation))
        (name, arguments) = calls_of(parts)[-1]
        assert name == "get_weather" and arguments.endswith(LAST_WORD)
        assert content_of(parts) == expected_content(segments)
        assert len(calls_of(parts)) == len(expected_calls(segments))


@pytest.mark.parametrize("notation", few_of(each_notation(NOTATIONS), 8))
def test_the_beginning_of_any_completion_comes_out_alike_and_without_an_error(notation):
    form = form_of(notation)
    for segments in completions()[13::17]:
        text = NOTATIONS[notation][1](segments)
        for end in range(len(text)):
            begun = text[:end]
            parts = read_whole(begun, form)
            assert streamed(begun, form, end // 2) == pieces(parts)
            names = [name for name, _ in calls_of(parts)]
            assert names == [name for name, _ in expected_calls(segments)][: len(names)]


@pytest.mark.parametrize("notation", NOTATIONS)
def test_names_come_first_and_arguments_in_pieces(notation):
    text = NOTATIONS[notation][1]([[("get_weather", {"note": "a long text " * 20})]])
    reader = AnswerReader(form_of(notation))
    parts = [part for sign in text for part in reader.push(sign)]
    start = next(at for at, part in enumerate(parts) if isinstance(part, CallStart))
    assert sum(isinstance(part, Arguments) for part in parts[start:]) > 20
