"""smolagents' model of OpenAI's API: two calls, whole and streamed."""

from __future__ import annotations

import json

from smolagents import OpenAIServerModel, tool
from smolagents.models import agglomerate_stream_deltas
from telling import ASK, KEY, MODEL, URL, tell, weather_in


@tool
def get_weather(city: str) -> str:
    """Tells the weather.

    Args:
        city: Where.
    """
    return weather_in(city)


model = OpenAIServerModel(model_id=MODEL, api_base=f"{URL}/v1", api_key=KEY, max_tokens=300)


def said(role, text):
    return {"role": role, "content": [{"type": "text", "text": text}]}


def whole(messages):
    return model.generate(messages, tools_to_call_from=[get_weather])


def streamed(messages):
    deltas = list(model.generate_stream(messages, tools_to_call_from=[get_weather]))
    assert len(deltas) > 1
    return agglomerate_stream_deltas(deltas)


def call_once(ask):
    """Its agents tell calls and results as texts, so that one round is what the model can be asked."""
    message = ask([said("user", ASK)])
    (call,) = message.tool_calls
    arguments = call.function.arguments
    return get_weather(**(json.loads(arguments) if isinstance(arguments, str) else arguments))


for ask in (whole, streamed):
    assert call_once(ask) == "rain in Bonn"
tell("smolagents", "chat")
