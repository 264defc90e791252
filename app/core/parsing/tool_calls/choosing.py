"""Which form a model writes calls and reasoning in: told by its chat template and special tokens. Any thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.deepseek import CALL as DEEPSEEK_CALL
from app.core.parsing.tool_calls.forms.deepseek import DEEPSEEK
from app.core.parsing.tool_calls.forms.gemma import GEMMA
from app.core.parsing.tool_calls.forms.glm import GLM
from app.core.parsing.tool_calls.forms.granite import GRANITE
from app.core.parsing.tool_calls.forms.harmony import HARMONY
from app.core.parsing.tool_calls.forms.hermes import HERMES
from app.core.parsing.tool_calls.forms.lfm2 import LFM2
from app.core.parsing.tool_calls.forms.llama_json import LLAMA_JSON
from app.core.parsing.tool_calls.forms.llama_python import LLAMA_PYTHON
from app.core.parsing.tool_calls.forms.mistral import MISTRAL
from app.core.parsing.tool_calls.forms.qwen_coder import QWEN_CODER
from app.core.parsing.tool_calls.reasoning import (
    GEMMA_THOUGHT,
    GRANITE_WORDS,
    HARMONY_CHANNELS,
    MAGISTRAL,
    THINK,
    ReasoningForm,
)

Form = TypeVar("Form")

CALL_FORMS = {
    one.name: one
    for one in (
        HERMES,
        QWEN_CODER,
        LLAMA_JSON,
        LLAMA_PYTHON,
        MISTRAL,
        GLM,
        DEEPSEEK,
        GEMMA,
        HARMONY,
        GRANITE,
        LFM2,
    )
}
REASONING_FORMS = {one.name: one for one in (THINK, MAGISTRAL, GRANITE_WORDS, GEMMA_THOUGHT, HARMONY_CHANNELS)}

# What a template writes for calls, the most telling first: some signs are parts of other families' forms.
_CALL_SIGNS: tuple[tuple[str, CallForm], ...] = (
    ("<|channel|>", HARMONY),
    (DEEPSEEK_CALL, DEEPSEEK),
    ("<|tool_call_start|>", LFM2),
    ("<arg_key>", GLM),
    ("<function=", QWEN_CODER),
    ("[TOOL_CALLS]", MISTRAL),
    ("<start_function_call>", GEMMA),
    ("<|tool_call>", GEMMA),
    ("<|tool_call|>", GRANITE),
    ("<tool_call>", HERMES),
    ("<|python_start|>", LLAMA_PYTHON),
    ("[func_name1(", LLAMA_PYTHON),
    ("<|python_tag|>", LLAMA_JSON),
    ('"parameters": dictionary', LLAMA_JSON),
)
_REASONING_SIGNS: tuple[tuple[str, ReasoningForm], ...] = (
    ("<|channel|>", HARMONY_CHANNELS),
    ("[THINK]", MAGISTRAL),
    ("<|channel>", GEMMA_THOUGHT),
    ("</think>", THINK),
    ("<think>", THINK),
    ("Here is my thought process:", GRANITE_WORDS),
)


def find_call_form(template: str, own: str, tokens: Iterable[str]) -> CallForm:
    """By the chat template, by what else a checkpoint says of its answers (``own``), by the special tokens.

    Hermes' form where nothing tells.
    """
    return _first(_CALL_SIGNS, template, own, tokens) or HERMES


def find_reasoning_form(template: str, own: str, tokens: Iterable[str]) -> ReasoningForm | None:
    """The same for reasoning; None where nothing tells of any."""
    return _first(_REASONING_SIGNS, template, own, tokens)


def _first(signs: tuple[tuple[str, Form], ...], template: str, own: str, tokens: Iterable[str]) -> Form | None:
    for known in (template, own, set(tokens)):
        if (found := next((form for sign, form in signs if sign in known), None)) is not None:
            return found
    return None
