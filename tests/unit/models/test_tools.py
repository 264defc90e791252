"""Tools in the chat template: rendered where it knows them."""

from __future__ import annotations

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
