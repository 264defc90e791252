"""Stop strings do not look at reasoning; signs that are special tokens are text where an answer is told apart."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.jobs import Finished, Job, ReasoningSpan, SamplingParams, TextDelta
from app.core.settings import load_settings
from app.engine.generation.sequence import Sequence
from app.engine.text.reasoning_gate import ReasoningGate
from app.engine.text.text_output import Pace
from app.models.checkpoint.loader import load_checkpoint
from app.models.text_model import TextModel
from tests.tiny_models import SPECIAL, tiny_tokenizer

THINK = ReasoningSpan(("<think>",), ("</think>",))
OPENED = ReasoningSpan(("<think>",), ("</think>",), is_open=True)
SIGNS = ["[TOOL_CALLS]", "[ARGS]", "<think>", "</think>"]


def parted(text: str, cuts: list[int], span: ReasoningSpan) -> tuple[str, str]:
    gate, inside, outside = ReasoningGate(span), "", ""
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    for start, end in itertools.pairwise(edges):
        reasoning, rest = gate.part(text[start:end])
        assert not (outside and reasoning), "reasoning comes first"
        inside, outside = inside + reasoning, outside + rest
    return inside, outside + gate.rest()


@pytest.mark.parametrize(
    ("text", "span", "inside"),
    [
        ("<think>a</think>b", THINK, "<think>a</think>"),
        ("\n <think>a</think>b</think>", THINK, "\n <think>a</think>"),
        ("b <think>a</think>", THINK, ""),
        ("<thin", THINK, ""),
        ("<think>a</th", THINK, "<think>a</th"),
        ("a</think>b", OPENED, "a</think>"),
        ("", OPENED, ""),
    ],
)
@given(cuts=st.lists(st.integers(0, 40), max_size=8))
def test_reasoning_is_parted_from_the_rest_wherever_the_text_is_cut(text, span, inside, cuts):
    assert parted(text, cuts, span) == (inside, text[len(inside) :])


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
    params = {"stop": ("STOP",), "shown_tokens": shown, "reasoning": THINK}
    assert text_of(model, "<think>a STOP b</think>c STOP d", **params) == ("<think>a STOP b</think>c ", "stop")
    assert text_of(model, "a STOP b", **params) == ("a ", "stop")
    assert text_of(model, "<think>STOP", **params)[0] == "<think>STOP"
    opened = params | {"reasoning": model.forms.reasoning_span(model.encode("Hi<think>\n"))}
    assert text_of(model, "a STOP b</think>c STOP d", **opened)[0] == "a STOP b</think>c "


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
