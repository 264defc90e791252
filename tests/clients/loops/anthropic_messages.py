"""The ``anthropic`` package on ``/v1/messages``: two calls, whole, streamed and by its tool runner; tokens counted."""

from __future__ import annotations

import anthropic
from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"name": "get_weather", "description": "Tells the weather.", "input_schema": SCHEMA}]
COMMON = {"model": MODEL, "max_tokens": 300, "tools": TOOLS}


def whole(messages):
    return client.messages.create(messages=messages, **COMMON)


def streamed(messages):
    with client.messages.stream(messages=messages, **COMMON) as stream:
        kinds = [event.type for event in stream]
        assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
        return stream.get_final_message()


def loop(ask):
    messages = [{"role": "user", "content": ASK}]
    while (message := ask(messages)).stop_reason == "tool_use":
        messages.append({"role": "assistant", "content": message.content})
        results = [
            {"type": "tool_result", "tool_use_id": block.id, "content": weather_in(block.input["city"])}
            for block in message.content
            if block.type == "tool_use"
        ]
        messages.append({"role": "user", "content": results})
    assert (message.stop_reason, message.content[0].type) == ("end_turn", "thinking")
    assert 0 < message.usage.output_tokens_details.thinking_tokens < message.usage.output_tokens
    return message.content[-1].text


@anthropic.beta_tool
def get_weather(city: str) -> str:
    """Tells the weather."""
    return weather_in(city)


for way in (whole, streamed):
    require_loop(loop(way))
ran = client.beta.messages.tool_runner(
    model=MODEL, max_tokens=300, tools=[get_weather], messages=[{"role": "user", "content": ASK}]
)
require_loop(ran.until_done().content[-1].text)
counted = client.messages.count_tokens(model=MODEL, messages=[{"role": "user", "content": ASK}], tools=TOOLS)
assert counted.input_tokens > 0
try:
    client.messages.create(model="other", max_tokens=5, messages=[{"role": "user", "content": ASK}])
    raise AssertionError("a model that there is not has answered")
except anthropic.NotFoundError as error:
    assert error.body["error"]["type"] == "not_found_error"
tell("anthropic", "messages")
