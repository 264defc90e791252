"""The ``openai`` package on ``/v1/chat/completions``: two calls, whole and streamed, and ``parse``."""

from __future__ import annotations

import json

import openai
from pydantic import BaseModel
from telling import ASK, KEY, MODEL, URL, called, require_loop, tell, weather_in


class Place(BaseModel):
    """Where the weather is asked for."""

    city: str


class Report(BaseModel):
    """What ``parse`` has to make."""

    rains: bool


client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
TOOLS = [openai.pydantic_function_tool(Place, name="get_weather")]


def whole(messages):
    return client.chat.completions.parse(model=MODEL, messages=messages, tools=TOOLS).choices[0]


def streamed(messages):
    with client.chat.completions.stream(model=MODEL, messages=messages, tools=TOOLS) as stream:
        kinds = {event.type for event in stream}
        choice = stream.get_final_completion().choices[0]
    assert ("tool_calls.function.arguments.done" in kinds) == bool(choice.message.tool_calls)
    return choice


def loop(ask):
    messages = [{"role": "user", "content": ASK}]
    while (choice := ask(messages)).finish_reason == "tool_calls":
        messages.append(choice.message)
        for call in choice.message.tool_calls:
            content = weather_in(call.function.parsed_arguments.city)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": content})
    return choice.message.content


for way in (whole, streamed):
    require_loop(loop(way))
report = client.chat.completions.parse(
    model=MODEL, messages=[{"role": "user", "content": ASK}], response_format=Report, max_tokens=200
)
assert isinstance(report.choices[0].message.parsed, Report)
named = {"type": "function", "function": {"name": "get_weather"}}
forced = client.chat.completions.create(
    model=MODEL, messages=[{"role": "user", "content": ASK}], tools=TOOLS, tool_choice=named, max_tokens=300
)
[call] = forced.choices[0].message.tool_calls
assert set(json.loads(call.function.arguments)) == {"city"} and not called
tell("openai", "chat")
