"""LiteLLM, asked as OpenAI's chat and as Anthropic's messages: two calls, whole and streamed; and its other routes."""

from __future__ import annotations

import json
import os

# Else it asks the network for prices as it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "tells it", "parameters": SCHEMA}}]
WAYS = {
    "openai": {"model": f"openai/{MODEL}", "api_base": f"{URL}/v1"},
    "anthropic": {"model": f"anthropic/{MODEL}", "api_base": URL},
}


def whole(way, messages):
    return litellm.completion(**WAYS[way], api_key=KEY, messages=messages, tools=TOOLS, max_tokens=300)


def streamed(way, messages):
    chunks = list(
        litellm.completion(**WAYS[way], api_key=KEY, messages=messages, tools=TOOLS, max_tokens=300, stream=True)
    )
    assert len(chunks) > 1
    return litellm.stream_chunk_builder(chunks, messages=messages)


def loop(ask, way):
    messages = [{"role": "user", "content": ASK}]
    while (message := ask(way, messages).choices[0].message).tool_calls:
        messages.append(message.model_dump())
        for call in message.tool_calls:
            result = weather_in(**json.loads(call.function.arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    return message.content.strip()


for way in WAYS:
    require_loop(loop(whole, way))
    require_loop(loop(streamed, way))
text = litellm.text_completion(
    model=f"text-completion-openai/{MODEL}", api_base=f"{URL}/v1", api_key=KEY, prompt="step0\n", max_tokens=4
)
assert text.choices[0].text
response = litellm.responses(**WAYS["openai"], api_key=KEY, input=ASK, max_output_tokens=300)
assert response.status == "completed"
tell("litellm", "chat", "messages", "completions", "responses")
