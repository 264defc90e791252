"""The form of calls and reasoning is told by the chat template, else by the special tokens."""

from __future__ import annotations

from typing import get_args

import pytest

from app.core.configuration.setting_fields import CallFormName, ReasoningFormName
from app.core.parsing.tool_calls.choosing import CALL_FORMS, REASONING_FORMS, find_call_form, find_reasoning_form
from app.models.tokens.model_forms import ModelForms
from tests.tiny_models import tiny_tokenizer

# What the families' templates write, as far as it tells them apart.
TEMPLATES = {
    "hermes": "For each call return <tool_call>\n{'name': <function-name>}\n</tool_call>",
    "qwen_coder": "<tool_call>\n<function=example>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    "llama_json": '{% if builtin %}<|python_tag|>{% endif %}{"name": function name, "parameters": dictionary of}',
    "llama_python": "in the format of [func_name1(params_name1=params_value1), func_name2(params)]",
    "mistral": "{{ '[TOOL_CALLS]' }}{{ name }}[ARGS]{{ arguments }}",
    "glm": "<tool_call>{{ name }}\n<arg_key>{{ k }}</arg_key>\n<arg_value>{{ v }}</arg_value></tool_call>",
    "deepseek": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>{{ name }}<｜tool▁sep｜>",
    "gemma": "<|tool_call>call:{{ name }}{ }<tool_call|>",
    "harmony": "<|start|>assistant<|channel|>commentary to=functions.f",
    "granite": "write <|tool_call|> followed by a JSON list of tools used",
    "lfm2": "<|tool_call_start|>[f(a=1)]<|tool_call_end|>",
    "dsml": "{%- set dsml_token = '｜DSML｜' -%}<{{ dsml_token }}function_calls>",
    "kimi": "<|tool_calls_section_begin|><|tool_call_begin|>{{ id }}<|tool_call_argument_begin|>",
    "minimax": "{%- set toolcall_begin_token = '<minimax:tool_call>' -%}<invoke name=\"f\">",
    "seed_oss": "<seed:tool_call>\n<function=f>\n<parameter=a>1</parameter>\n</function>\n</seed:tool_call>",
    "cohere": "<|START_ACTION|>[{{ call }}]<|END_ACTION|>",
    "phi": "<|tool|>{{ tools }}<|/tool|>",
    "nemotron": "<TOOLCALL>[{{ calls }}]</TOOLCALL>",
    "jamba": "<tool_calls>[{{ calls }}]</tool_calls>",
    "internlm": "<|action_start|><|plugin|>\n{{ call }}<|action_end|>",
    "apertus": "{%- set tool_calls_token = '<|tools_prefix|>' -%}",
    "xlam": 'in a single JSON array: \n\n[{"name": "tool_call_name", "arguments": {"arg1": "value1"}}, ...]',
    "olmo": "<function_calls>\nget_weather(city='New York', units='celsius')\n</function_calls>",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_template_tells_the_form_of_calls(name):
    assert find_call_form(TEMPLATES[name], "", []).name == name


def test_a_checkpoints_own_description_of_its_answers_tells_where_the_template_does_not():
    tokenizer = tiny_tokenizer("{{ tools }}{{ messages }}")
    tokenizer.response_template = {
        "fields": {
            "thinking": {"open": "[THINK]", "close": "[/THINK]"},
            "tool_calls": {"open_pattern": r"<\|tool_call_start\|>\[", "close": "]<|tool_call_end|>"},
        }
    }
    forms = ModelForms(tokenizer)
    assert (forms.calls.name, forms.reasoning.name) == ("lfm2", "magistral")
    assert find_call_form("<tool_call>", "<|python_tag|>", ["[TOOL_CALLS]"]).name == "hermes"


def test_special_tokens_tell_where_the_template_does_not():
    assert find_call_form("{{ tools }}", "", ["<s>", "[TOOL_CALLS]"]).name == "mistral"
    assert find_call_form("{{ tools }}", "", []).name == "hermes"
    assert find_call_form("<tool_call>", "", ["<|python_tag|>"]).name == "hermes"


@pytest.mark.parametrize(
    ("template", "tokens", "name"),
    [
        ("{{ '<think>\\n' }}", [], "think"),
        ("{{ messages }}", ["</think>"], "think"),
        ("[THINK][/THINK]", [], "magistral"),
        ("Here is my thought process: ", [], "granite"),
        ("<|channel>thought\n<channel|>", [], "gemma"),
        ("<|channel|>analysis", [], "harmony"),
        ("{{ '<think>\\n' }}{{ '\\n</think>\\n<answer>\\n' }}", [], "hunyuan"),
        ("{%- set think_begin_token = '<seed:think>' -%}", [], "seed"),
        ("<|START_THINKING|>", [], "cohere"),
        ("{{ messages }}", ["<|inner_prefix|>"], "apertus"),
    ],
)
def test_the_template_tells_the_form_of_reasoning(template, tokens, name):
    form = find_reasoning_form(template, "", tokens)
    assert form is not None and form.name == name


def test_without_a_sign_of_reasoning_there_is_none():
    assert find_reasoning_form("{{ messages }}", "", ["<s>"]) is None


def test_settings_know_every_form():
    assert set(get_args(CallFormName)) == {"auto", *CALL_FORMS}
    assert set(get_args(ReasoningFormName)) == {"auto", "none", *REASONING_FORMS}
