"""Stop strings look at content alone; signs that are special tokens are text where an answer is told apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from app.core.parsing.tool_calls.answer_parts import Content
from app.core.parsing.tool_calls.answer_reader import AnswerForm, read_whole
from app.core.parsing.tool_calls.choosing import CALL_FORMS, REASONING_FORMS
from app.core.parsing.tool_calls.known_tools import KnownTools
from app.core.settings import load_settings
from app.core.work.job_events import Finished, TextDelta
from app.core.work.jobs import Job
from app.core.work.sampling_params import ReasoningLimit, SamplingParams
from app.engine.generation.sequence import Sequence
from app.engine.sampling.sampler import choose
from app.engine.text.answer_gate import AnswerGate, Segment
from app.engine.text.text_output import Pace
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel
from tests.tiny_models import SPECIAL, tiny_tokenizer
from tests.unit.models.call_notations import NOTATIONS, completions
from tests.unit.models.call_notations import TOOLS as NOTATION_TOOLS

SIGNS = ["[TOOL_CALLS]", "[ARGS]", "<think>", "</think>"]
TOOLS = KnownTools([{"function": {"name": "f", "parameters": {"properties": {"a": {"type": "string"}}}}}])
THINK = AnswerForm(None, REASONING_FORMS["think"])
OPENED = replace(THINK, is_thinking=True)
CALLS = {name: AnswerForm(CALL_FORMS[name], REASONING_FORMS["think"], TOOLS) for name in CALL_FORMS}


def gated(text: str, cuts: list[int], form: AnswerForm) -> list[Segment]:
    """The segments of ``text`` cut so, neighbours of one kind together."""
    gate = AnswerGate(form)
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    found = [segment for start, end in itertools.pairwise(edges) for segment in gate.push(text[start:end])]
    found += gate.finish()
    kinds = itertools.groupby(found, lambda segment: segment.is_content)
    return [Segment("".join(one.text for one in some), kind) for kind, some in kinds]


def content_of(segments: list[Segment]) -> str:
    return "".join(segment.text for segment in segments if segment.is_content)


@pytest.mark.parametrize(
    ("text", "form", "content"),
    [
        ("<think>a</think>b", THINK, "b"),
        ("\n <think>a</think>b</think>", THINK, "b</think>"),
        ("b <think>a</think>", THINK, "b <think>a</think>"),
        ("<thin", THINK, "<thin"),
        ("<think>a</th", THINK, ""),
        ("a</think>b", OPENED, "b"),
        ("", OPENED, ""),
        ('a <tool_call>{"name": "f", "arguments": {"a": "b"}}</tool_call> c', CALLS["hermes"], "a c"),
        ('<tool_call>{"name": "f", "arguments": {"a": "b', CALLS["hermes"], ""),
        ("a <tool_call> b", CALLS["hermes"], "a <tool_call> b"),
        ("<think>x</think>a[TOOL_CALLS]f[ARGS]{}", CALLS["mistral"], "a"),
        ("<|channel|>analysis<|message|>x<|end|><|start|>assistant<|channel|>final<|message|>y", CALLS["harmony"], "y"),
    ],
)
@given(cuts=st.lists(st.integers(0, 90), max_size=8))
def test_content_is_parted_from_the_rest_wherever_the_text_is_cut(text, form, content, cuts):
    segments = gated(text, cuts, form)
    assert "".join(segment.text for segment in segments) == text
    assert content_of(segments).split() == content.split()


@pytest.mark.parametrize("notation", NOTATIONS)
def test_what_is_content_to_the_engine_is_so_to_the_reader_and_arguments_are_not_held_back(notation):
    name, write = NOTATIONS[notation]
    form = AnswerForm(CALL_FORMS[name], None, KnownTools(NOTATION_TOOLS))
    for segments in completions()[3::10]:
        text = write(segments)
        parted = gated(text, list(range(len(text))), form)
        assert "".join(segment.text for segment in parted) == text
        expected = "".join(part.text for part in read_whole(text, form) if isinstance(part, Content))
        assert content_of(parted).split() == expected.split()
    gate = AnswerGate(form)
    text = write([[("f", {"note": "word " * 40})]])
    out = "".join(segment.text for segment in gate.push(text[: text.rindex("word") + 4]))
    assert "word " * 30 in out


@pytest.fixture(scope="module")
def model(model_folder):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("qwen2"))})
    checkpoint = load_checkpoint(settings, lambda _: None)
    tokenizer = tiny_tokenizer("{{ tools }}[TOOL_CALLS][ARGS]</think>", [*SPECIAL, *SIGNS])
    return TextModel("tiny", replace(checkpoint, tokenizer=tokenizer), 512)


def text_of(model: TextModel, text: str, **params: object) -> tuple[str, str]:
    job = Job("test", model.encode("Hi"), SamplingParams(400, **params))
    sequence = Sequence(job, model, Pace())
    for token in model.encode(text):
        if not job.has_ended:
            sequence.accept(token)
    if not job.has_ended:
        sequence.accept(next(iter(model.eos_ids)))
    events = job.next_events(1)
    reason = next(event.finish_reason for event in events if isinstance(event, Finished))
    return "".join(event.text for event in events if isinstance(event, TextDelta)), reason


def test_a_stop_string_inside_the_reasoning_does_not_end_the_answer(model):
    shown = model.forms.shown_tokens(has_tools=False)
    params = {"stop": ("STOP",), "shown_tokens": shown, "answer": THINK}
    assert text_of(model, "<think>a STOP b</think>c STOP d", **params) == ("<think>a STOP b</think>c ", "stop")
    assert text_of(model, "a STOP b", **params) == ("a ", "stop")
    assert text_of(model, "<think>STOP", **params)[0] == "<think>STOP"
    opened = params | {"answer": model.forms.of_request(None, model.encode("Hi<think>\n"))}
    assert text_of(model, "a STOP b</think>c STOP d", **opened)[0] == "a STOP b</think>c "


def test_a_stop_string_inside_a_call_does_not_end_the_answer(model):
    params = {
        "stop": ("STOP", "}", "\n"),
        "shown_tokens": model.forms.shown_tokens(has_tools=True),
        "answer": CALLS["mistral"],
    }
    call = '[TOOL_CALLS]f[ARGS]{"a": "x STOP\\n", "b": {}}'
    assert text_of(model, f"ab {call}{call} c STOP d", **params) == (f"ab {call}{call} c ", "stop")
    assert text_of(model, call, **params) == (call, "stop")
    assert text_of(model, f"ST{call}OP", **params)[0] == f"ST{call}OP"


def test_signs_that_are_special_tokens_are_text_where_they_are_wanted_and_nowhere_else(model):
    whole = "x[TOOL_CALLS]f[ARGS]{}"
    assert text_of(model, whole) == ("xf{}", "stop")
    assert model.forms.calls.name == "mistral" and model.forms.reasoning.name == "think"
    assert text_of(model, whole, shown_tokens=model.forms.shown_tokens(has_tools=True))[0] == whole
    assert text_of(model, whole, shown_tokens=model.forms.shown_tokens(has_tools=False))[0] == "xf{}"


def test_a_stop_string_may_name_a_special_token_that_is_text(model):
    shown = model.forms.shown_tokens(has_tools=True)
    assert text_of(model, "x[TOOL_CALLS]f[ARGS]{}", shown_tokens=shown, stop=("[ARGS]",))[0] == "x[TOOL_CALLS]f"


def test_a_prompt_that_ends_in_the_opening_tag_has_opened_the_reasoning(model):
    assert model.forms.of_request(None, model.encode("<think>\n")).is_thinking
    assert not model.forms.of_request(None, model.encode("<think></think>")).is_thinking


def thinking(model: TextModel, text: str, budget: int, **params: object) -> tuple[str, int | None]:
    """What comes of a model that wants to write ``text``, and how many tokens of it are reasoning."""
    closing = tuple(model.encode("</think>", add_special_tokens=False))
    params = {"answer": THINK, "shown_tokens": model.forms.shown_tokens(has_tools=False), **params}
    job = Job(
        "test", model.encode("Hi"), SamplingParams(400, reasoning_limit=ReasoningLimit(budget, closing), **params)
    )
    sequence = Sequence(job, model, Pace())
    wanted = model.encode(text)
    while not job.has_ended:
        logits = torch.zeros(1, model.vocab_size)
        logits[0, wanted[0] if wanted else next(iter(model.eos_ids))] = 9.0
        [(token, _)] = choose(logits, [sequence.sampler])
        if wanted and token == wanted[0]:
            wanted = wanted[1:]
        sequence.accept(token)
    events = job.next_events(1)
    return "".join(event.text for event in events if isinstance(event, TextDelta)), job.usage.reasoning_tokens


def test_reasoning_past_its_budget_is_closed_and_counted(model):
    assert thinking(model, "<think>abc</think>d", 99) == ("<think>abc</think>d", 5)
    assert thinking(model, "<think>abcdef", 4) == ("<think>ab</think>cdef", 4)
    assert thinking(model, "abc", 0) == ("abc", 0)
    assert thinking(model, "abc", 0, answer=OPENED) == ("</think>abc", 1)
    assert thinking(model, "<think>abc", 1) == ("<think></think>abc", 2)


def test_reasoning_is_not_closed_in_the_middle_of_a_character(model):
    text = "<think>\U0001f5fc\U0001f5fc\U0001f5fc"
    num_tokens = len(model.encode("\U0001f5fc"))
    assert num_tokens > 1
    expected = f"{text[:8]}</think>{text[8:]}"
    assert thinking(model, text, 3) == (expected, 2 + num_tokens)
