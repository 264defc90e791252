"""Which form a model writes calls and reasoning in: told by its chat template and special tokens. Any thread."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from app.core.parsing.tool_calls.forms.call_form import CallForm
from app.core.parsing.tool_calls.forms.code_forms.gemma import GEMMA
from app.core.parsing.tool_calls.forms.code_forms.lfm2 import LFM2
from app.core.parsing.tool_calls.forms.code_forms.llama_python import LLAMA_PYTHON
from app.core.parsing.tool_calls.forms.code_forms.olmo import OLMO
from app.core.parsing.tool_calls.forms.named_forms.deepseek import CALL as DEEPSEEK_CALL
from app.core.parsing.tool_calls.forms.named_forms.deepseek import DEEPSEEK
from app.core.parsing.tool_calls.forms.named_forms.harmony import HARMONY
from app.core.parsing.tool_calls.forms.named_forms.kimi import KIMI
from app.core.parsing.tool_calls.forms.named_forms.mistral import MISTRAL
from app.core.parsing.tool_calls.forms.object_forms.apertus import APERTUS
from app.core.parsing.tool_calls.forms.object_forms.cohere import COHERE
from app.core.parsing.tool_calls.forms.object_forms.granite import GRANITE
from app.core.parsing.tool_calls.forms.object_forms.hermes import HERMES
from app.core.parsing.tool_calls.forms.object_forms.internlm import INTERNLM
from app.core.parsing.tool_calls.forms.object_forms.jamba import JAMBA
from app.core.parsing.tool_calls.forms.object_forms.llama_json import LLAMA_JSON
from app.core.parsing.tool_calls.forms.object_forms.nemotron import NEMOTRON
from app.core.parsing.tool_calls.forms.object_forms.phi import PHI
from app.core.parsing.tool_calls.forms.object_forms.xlam import XLAM
from app.core.parsing.tool_calls.forms.tagged_forms.dsml import DSML
from app.core.parsing.tool_calls.forms.tagged_forms.dsml import TOKEN as DSML_TOKEN
from app.core.parsing.tool_calls.forms.tagged_forms.glm import GLM
from app.core.parsing.tool_calls.forms.tagged_forms.minimax import MINIMAX
from app.core.parsing.tool_calls.forms.tagged_forms.qwen_coder import QWEN_CODER
from app.core.parsing.tool_calls.forms.tagged_forms.seed_oss import SEED_OSS
from app.core.parsing.tool_calls.reasoning import (
    APERTUS_INNER,
    COHERE_THINKING,
    GEMMA_THOUGHT,
    GRANITE_WORDS,
    HARMONY_CHANNELS,
    HUNYUAN,
    MAGISTRAL,
    SEED_THINK,
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
        DSML,
        KIMI,
        MINIMAX,
        GEMMA,
        HARMONY,
        GRANITE,
        LFM2,
        COHERE,
        PHI,
        NEMOTRON,
        JAMBA,
        SEED_OSS,
        OLMO,
        INTERNLM,
        APERTUS,
        XLAM,
    )
}
REASONING_FORMS = {
    one.name: one
    for one in (
        THINK,
        MAGISTRAL,
        GRANITE_WORDS,
        GEMMA_THOUGHT,
        HARMONY_CHANNELS,
        HUNYUAN,
        SEED_THINK,
        COHERE_THINKING,
        APERTUS_INNER,
    )
}

# What a template writes for calls, the most telling first: some signs are parts of other families' forms.
_CALL_SIGNS: tuple[tuple[str, CallForm], ...] = (
    ("<|channel|>", HARMONY),
    (DSML_TOKEN, DSML),
    (DEEPSEEK_CALL, DEEPSEEK),
    ("<|tool_calls_section_begin|>", KIMI),
    ("<minimax:tool_call>", MINIMAX),
    ("<seed:tool_call>", SEED_OSS),
    ("<|START_ACTION|>", COHERE),
    ("<|tools_prefix|>", APERTUS),
    ("<|action_start|>", INTERNLM),
    ("<|tool_call_start|>", LFM2),
    ("<TOOLCALL>", NEMOTRON),
    ("<function_calls>", OLMO),
    ("<tool_calls>", JAMBA),
    ("functools[", PHI),
    ("<|/tool_call|>", PHI),
    ("<|/tool|>", PHI),
    ("<arg_key>", GLM),
    ("<function=", QWEN_CODER),
    ("[TOOL_CALLS]", MISTRAL),
    ("<start_function_call>", GEMMA),
    ("<|tool_call>", GEMMA),
    ("<|tool_call|>", GRANITE),
    ("<tool_call>", HERMES),
    ("<|python_start|>", LLAMA_PYTHON),
    ("[func_name1(", LLAMA_PYTHON),
    ('[{"name": "tool_call_name"', XLAM),
    ("<|python_tag|>", LLAMA_JSON),
    ('"parameters": dictionary', LLAMA_JSON),
)
_REASONING_SIGNS: tuple[tuple[str, ReasoningForm], ...] = (
    ("<|channel|>", HARMONY_CHANNELS),
    ("[THINK]", MAGISTRAL),
    ("<|channel>", GEMMA_THOUGHT),
    ("<seed:think>", SEED_THINK),
    ("<|START_THINKING|>", COHERE_THINKING),
    ("<|inner_prefix|>", APERTUS_INNER),
    ("</think>\\n<answer>", HUNYUAN),
    ("</think>\n<answer>", HUNYUAN),
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
