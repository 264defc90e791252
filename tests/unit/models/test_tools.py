"""Tools in the chat template: rendered where it knows them."""

from __future__ import annotations

import pytest

from tests.unit.models.test_text_model import load

TEMPLATE = (
    "{% if tools %}TOOLS{% for tool in tools %} {{ tool.function.name }}{% endfor %}|{% endif %}"
    "{% for m in messages %}{{ m.role }}: {{ m.content }}{% for call in m.tool_calls or [] %}"
    "<tool_call>{{ call.function.arguments | tojson }}</tool_call>{% endfor %}|{% endfor %}"
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def test_a_template_that_names_tools_renders_them(model_folder):
    model = load(model_folder("qwen2"))
    assert not model.has_tool_template
    model.tokenizer.chat_template = TEMPLATE
    assert model.has_tool_template
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Bonn"}}}
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    rendered = model.tokenizer.decode(model.encode_chat(messages, TOOLS))
    assert rendered == 'TOOLS weather|user: Hi|assistant: <tool_call>{"city": "Bonn"}</tool_call>|'
    assert model.tokenizer.decode(model.encode_chat(messages)).startswith("user: Hi")


CALLING = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f", "arguments": {"a": None}}}]}


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages[0]['content'] is none }}", "True"),
        ("{% if messages[0]['content'] is not none %}text{% else %}calls{% endif %}", "calls"),
        ("{% set content = messages[0].content %}{% if content is none %}calls{% endif %}", "calls"),
        ("{{ messages[0].content }}calls", "calls"),
        ("{{ messages[0].tool_calls[0].function.arguments }}", "{'a': None}"),
    ],
)
def test_a_template_that_asks_whether_content_is_none_is_told_and_others_do_not_write_the_word(
    model_folder, template, expected
):
    model = load(model_folder("qwen2"))
    model.tokenizer.chat_template = template
    assert model.tokenizer.decode(model.encode_chat([CALLING])) == expected
