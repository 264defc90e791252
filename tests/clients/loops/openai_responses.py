"""The ``openai`` package on ``/v1/responses``: two calls, whole and streamed, and ``parse``."""

from __future__ import annotations

import json

import openai
from pydantic import BaseModel
from telling import ASK, KEY, MODEL, URL, require_loop, tell, weather_in


class Place(BaseModel):
    """Where the weather is asked for."""

    city: str


class Report(BaseModel):
    """What ``parse`` has to make."""

    rains: bool


client = openai.OpenAI(base_url=f"{URL}/v1", api_key=KEY, max_retries=0)
function = openai.pydantic_function_tool(Place, name="get_weather")["function"]
TOOLS = [{"type": "function", **function}]


def whole(items):
    return client.responses.parse(model=MODEL, input=items, tools=TOOLS, store=False)


def streamed(items):
    with client.responses.stream(model=MODEL, input=items, tools=TOOLS, store=False) as stream:
        kinds = [event.type for event in stream]
        response = stream.get_final_response()
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    return response


def loop(ask):
    items = [{"role": "user", "content": ASK}]
    while True:
        response = ask(items)
        assert response.output[0].type == "reasoning"
        assert 0 < response.usage.output_tokens_details.reasoning_tokens < response.usage.output_tokens
        calls = [item for item in response.output if item.type == "function_call"]
        if not calls:
            return response.output_text
        items += [item.model_dump(exclude={"parsed_arguments"}) for item in response.output]
        for call in calls:
            output = weather_in(json.loads(call.arguments)["city"])
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": output})


for way in (whole, streamed):
    require_loop(loop(way))
report = client.responses.parse(model=MODEL, input=ASK, text_format=Report, max_output_tokens=200)
assert isinstance(report.output_parsed, Report)
tell("openai", "responses")
