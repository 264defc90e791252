"""Reasoning comes apart from the content, in every form, whole and cut anywhere."""

from __future__ import annotations

import pytest

from app.core.parsing.tool_calls.answer_parts import Content, Reasoning
from app.core.parsing.tool_calls.answer_reader import AnswerForm, AnswerReader, read_whole
from app.core.parsing.tool_calls.choosing import CALL_FORMS, REASONING_FORMS
from app.http.answers.chat_parts import merged

HARMONY = "<|channel|>analysis<|message|>Think {hard}.<|end|><|start|>assistant<|channel|>final<|message|>The <answer>."


def form_of(name: str, *, is_thinking: bool = False) -> AnswerForm:
    calls = CALL_FORMS["harmony"] if name == "harmony" else None
    return AnswerForm(calls, REASONING_FORMS[name], is_thinking=is_thinking)


@pytest.mark.parametrize(
    ("name", "is_thinking", "text", "reasoning", "content"),
    [
        ("think", False, "<think>\nLet me <b>.\n</think>\n\nYes.", "Let me <b>.", "Yes."),
        ("think", True, "Let me.\n</think>\n\nYes.", "Let me.", "Yes."),
        ("think", True, "<think>Let me.</think>Yes.", "Let me.", "Yes."),
        ("think", False, "\n<think></think>\n\nYes.", "", "Yes."),
        ("think", False, "Yes <think>no</think>.", "", "Yes <think>no</think>."),
        ("think", False, "<think>never ends </thin", "never ends </thin", ""),
        ("think", False, "<thin", "", "<thin"),
        ("think", False, "<think>A</think><response>B</response>", "A", "B"),
        ("think", False, "The tag <response> is XML.", "", "The tag <response> is XML."),
        ("magistral", False, "[THINK]東京 🗼[/THINK]Yes.", "東京 🗼", "Yes."),
        ("granite", False, "Here is my thought process: A\n\nHere is my response: B", "A", "B"),
        ("gemma", False, "<|channel>thought\nA<channel|>B", "A", "B"),
        ("hunyuan", False, "<think>\nA\n</think>\n<answer>\nB\n</answer>", "A", "B"),
        ("hunyuan", False, "Put it in <answer> tags.", "", "Put it in <answer> tags."),
        ("seed", False, "<seed:think>A</seed:think>B", "A", "B"),
        ("cohere", False, "<|START_THINKING|>A<|END_THINKING|><|START_RESPONSE|>B<|END_RESPONSE|>", "A", "B"),
        ("cohere", False, "<|START_RESPONSE|>B<|END_RESPONSE|>", "", "B"),
        ("apertus", False, "<|inner_prefix|>A<|inner_suffix|>B", "A", "B"),
        ("harmony", False, HARMONY, "Think {hard}.", "The <answer>."),
        ("harmony", False, HARMONY.removesuffix("ssage|>The <answer>."), "Think {hard}.", ""),
    ],
)
def test_reasoning_and_content_come_apart_wherever_the_text_is_cut(name, is_thinking, text, reasoning, content):
    form = form_of(name, is_thinking=is_thinking)
    whole = merged(read_whole(text, form))
    assert "".join(part.text for part in whole if isinstance(part, Reasoning)) == reasoning
    assert "".join(part.text for part in whole if isinstance(part, Content)) == content
    for cut in range(len(text)):
        reader = AnswerReader(form)
        assert merged(reader.push(text[:cut]) + reader.push(text[cut:]) + reader.finish()) == whole
    reader = AnswerReader(form)
    assert merged([part for sign in text for part in reader.push(sign)] + reader.finish()) == whole


def test_reasoning_is_streamed_as_it_comes():
    reader = AnswerReader(form_of("think"))
    pieces = [reader.push(text) for text in ("<think>", "one ", "two ", "three", "</think>", "So")]
    assert pieces[1:4] == [[Reasoning("one")], [Reasoning(" two")], [Reasoning(" three")]]
    assert pieces[5] == [Content("So")]
