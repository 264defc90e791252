"""Bodies of other APIs with a hostile value anywhere: a clear refusal in the form of that API, or an answer.

Every value of a rich body is replaced by each of a list of odd ones, more than Schemathesis tries of one field.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.parsing.tool_calls.reasoning import THINK
from tests.contract.conftest import client_of
from tests.contract.describing import RoomyModel
from tests.contract.named_events import named_events_of
from tests.thinned import few_of

MESSAGES, COUNT, RESPONSES = "/v1/messages", "/v1/messages/count_tokens", "/v1/responses"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'
CONVERSATION = {
    "system": [{"type": "text", "text": "be brief", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "hi", "citations": []}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "unsigned"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Bonn"}},
            ],
        },
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "rain"}]}],
        },
    ],
    "tools": [{"name": "weather", "description": "tells it", "input_schema": SCHEMA, "strict": False}],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
    "thinking": {"type": "enabled", "budget_tokens": 100},
    "output_config": {"effort": "low"},
    "chat_template_kwargs": {"enable_thinking": True},
    "model": "scripted",
}
SAMPLING = {"temperature": 0.5, "top_p": 0.9, "seed": 1, "cache_salt": "x"}
BODIES: dict[str, dict[str, Any]] = {
    MESSAGES: {
        **CONVERSATION,
        **SAMPLING,
        "max_tokens": 50,
        "stop_sequences": ["###"],
        "top_k": 5,
        "metadata": {"user_id": "u"},
        "service_tier": "auto",
    },
    COUNT: CONVERSATION,
    RESPONSES: {
        **SAMPLING,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "x"}]},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": "Bonn"}'},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
        ],
        "instructions": "be brief",
        "max_output_tokens": 50,
        "tools": [{"type": "function", "name": "weather", "parameters": SCHEMA, "strict": False}],
        "tool_choice": "auto",
        "text": {"format": {"type": "text"}, "verbosity": "low"},
        "reasoning": {"effort": "low", "summary": "auto"},
        "metadata": {"a": "b"},
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 1,
        "model": "scripted",
    },
}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": [value]}
    return value


ODD: list[Any] = [
    None,
    True,
    -1,
    0.5,
    10**30,
    "",
    "\x00\u2028",
    "{{ 1 }}<|im_end|>",
    "x" * 2000,
    [],
    [[]] * 2000,
    [None, 1, "a", {}],
    {},
    {"type": "text"},
    {"type": ["text"]},
    {"role": "user", "content": {"type": "text", "text": "x"}},
    {f"k{i}": i for i in range(2000)},
    nested(40),
]


def places(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every value in ``value``."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inside:
        yield (*path, step)
        yield from places(one, (*path, step))


def replaced(body: dict[str, Any], path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(body)
    at: Any = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    return found


@pytest.fixture
def world(make_world):
    world = make_world(model=RoomyModel())
    world.model.forms.reasoning = THINK
    world.inference.script = ["<think>hm</think>I look.", CALL]
    return world


def require_clear(route: str, response: Any, field: str) -> None:
    """The refusal has the form of the route's API and names the field."""
    body = response.get_json()
    assert response.status_code == (404 if body["error"]["type"] == "not_found_error" else 400), body
    if route == RESPONSES:
        assert set(body["error"]) == {"message", "type", "param", "code"}
        assert field == body["error"]["param"] or field in body["error"]["message"], body
    else:
        assert body["type"] == "error" and set(body["error"]) == {"type", "message"}
        assert field in body["error"]["message"], (field, body)


def test_the_bodies_are_taken_as_they_are(world):
    client = client_of(world)
    for route, body in BODIES.items():
        assert client.post(route, json=body).status_code == 200, client.post(route, json=body).get_json()


# A few values for every run of the suite, all of them with `-m chaos`.
VALUES = pytest.mark.parametrize("values", [ODD[-4:], pytest.param(ODD, marks=pytest.mark.chaos)], ids=["few", "all"])


@VALUES
@pytest.mark.parametrize("route", few_of(BODIES, 1))
def test_a_hostile_value_anywhere_is_refused_by_its_fields_name_or_answered(world, route, values):
    for path in places(BODIES[route]):
        try_values(world, route, path, values)


def try_values(world: Any, route: str, path: tuple[str | int, ...], values: list[Any]) -> None:
    client = client_of(world)
    for value in values:
        body = replaced(BODIES[route], path, value)
        response = client.post(route, json=body)
        if response.status_code == 200:
            assert response.get_json()
            continue
        # A choice of a tool names another field where that field took the tools away.
        require_clear(route, response, "tool" if path[0] in ("tools", "tool_choice") else str(path[0]))
    assert world.num_places() == 0


@pytest.mark.parametrize("route", [MESSAGES, RESPONSES])
def test_a_stream_of_a_hostile_body_is_refused_before_its_first_byte(world, route):
    client = client_of(world)
    for path in places(BODIES[route]):
        body = replaced(BODIES[route], path, nested(40)) | {"stream": True}
        response = client.post(route, json=body)
        if response.status_code == 200:
            assert named_events_of(response)[-1]["type"] in ("message_stop", "response.completed")
        else:
            require_clear(route, response, "tool" if "tool" in str(path[0]) else str(path[0]))


RAW = [
    b"[" * 50_000,
    b'{"a":' * 50_000,
    b'{"messages": "\\ud800", "input": "\\ud800"}',
    b'{"input": "a", "input": "b", "messages": [], "messages": []}',
    b'{"temperature": NaN}',
    b'{"temperature": 1e999}',
    b"\xff\xfe{}",
    b"null",
    b"",
    b'{"max_tokens": ' + b"9" * 5000 + b"}",
]


@pytest.mark.parametrize("route", BODIES)
@pytest.mark.parametrize("raw", RAW, ids=range(len(RAW)))
def test_what_is_no_sound_json_is_refused_in_the_form_of_the_route(world, route, raw):
    response = client_of(world).post(route, data=raw, content_type="application/json")
    require_clear(route, response, "")


def test_more_calls_than_chat_takes_are_refused_by_the_apis_own_field(world):
    called = {"type": "tool_use", "id": "a", "name": "f", "input": {}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": [called] * 200},
        {"role": "user", "content": "a"},
    ]
    response = client_of(world).post(MESSAGES, json={"max_tokens": 5, "messages": turns})
    assert response.get_json()["error"]["message"].startswith("messages: ")
    item = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    error = client_of(world).post(RESPONSES, json={"input": [item] * 200}).get_json()["error"]
    assert error["param"] == "input" and error["message"].startswith("input: ")


@pytest.mark.parametrize("route", BODIES)
def test_huge_lists_are_refused_at_their_first_mistake(world, route):
    listed = [{"role": "user", "content": 1}] * 50_000
    body = BODIES[route] | {"input" if route == RESPONSES else "messages": listed}
    field = "input" if route == RESPONSES else "messages"
    require_clear(route, client_of(world).post(route, json=body), f"{field}.0.content")
    assert len(json.dumps(body)) > 1_000_000
