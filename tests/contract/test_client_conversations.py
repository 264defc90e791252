"""The Python client where an answer has parts: text, reasoning and calls, whole and streamed; and its smaller calls."""

from __future__ import annotations

import json

import pytest

from app.client import Client, ForeignAnswerError, InvalidParameterError, SetupError
from app.http.application.factory import create_app
from tests.contract.describing import RoomyModel
from tests.contract.loopback import serving

TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'
OTHER = '<tool_call>{"name": "weather", "arguments": {"city": "Köln"}}</tool_call>'
ASKED = [{"role": "user", "content": "Will it rain?"}]


@pytest.fixture
def world(make_world):
    return make_world(model=RoomyModel())


@pytest.fixture
def client(world):
    with serving(create_app(world.context)) as url:
        yield Client(url, max_retries=0)


def test_an_answer_has_its_parts(client, world):
    world.inference.script = list(f"Let me see.{CALL}{OTHER}")
    answer = client.converse(ASKED, tools=[TOOL])
    assert answer.content == "Let me see." and answer.finish_reason == "tool_calls"
    assert [json.loads(call.arguments) for call in answer.calls] == [{"city": "Bonn"}, {"city": "Köln"}]
    assert answer.usage.completion_tokens > 0 and answer.model == "scripted"


def test_a_stream_tells_the_name_before_the_arguments_and_ends_in_the_whole(client, world):
    world.inference.script = list(f"Let me see.{CALL}{OTHER}")
    pieces = list(client.converse(ASKED, tools=[TOOL], stream=True))
    assert "".join(piece.content for piece in pieces) == "Let me see."
    named = next(piece for piece in pieces if piece.calls)
    assert [(call.name, call.arguments) for call in named.calls] == [("weather", "")]
    answer = pieces[-1].answer
    assert answer is not None and all(piece.answer is None for piece in pieces[:-1])
    assert [json.loads(call.arguments) for call in answer.calls] == [{"city": "Bonn"}, {"city": "Köln"}]
    assert (answer.content, answer.finish_reason) == ("Let me see.", "tool_calls")
    assert "".join(piece.arguments for piece in pieces) == "".join(call.arguments for call in answer.calls)


def test_results_of_tools_go_back_with_what_was_spoken(client, world):
    world.inference.script = list(CALL)
    first = client.converse(ASKED, tools=[TOOL])
    world.inference.script = ["It will."]
    result = {"role": "tool", "tool_call_id": first.calls[0].id, "content": "rain"}
    second = client.converse([*ASKED, first.spoken(), result], tools=[TOOL])
    assert second.content == "It will." and second.calls == ()
    assert [message["role"] for message in world.model.encoded[-1]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("is_streamed", [True, False])
def test_a_refusal_has_its_class(client, is_streamed):
    with pytest.raises(InvalidParameterError) as caught:
        found = client.converse(ASKED, temperature=-1, stream=is_streamed)
        list(found)
    assert caught.value.param == "temperature"


@pytest.mark.parametrize("option", [{"n": 2}, {"logprobs": True}])
def test_what_would_not_come_back_is_not_asked_for(client, world, option):
    with pytest.raises(SetupError, match="converse gives back one answer"):
        client.converse(ASKED, **option)
    assert world.inference.jobs == []


def test_tokens_go_both_ways(client):
    tokens = client.tokenize("ab")
    assert tokens.ids == (97, 98) and tokens.texts == ("a", "b") and tokens.max_context == 4096
    assert client.detokenize(tokens.ids) == "ab"


def test_the_models_are_told(client):
    (model,) = client.models()
    assert model["id"] == "scripted" and "/complete" in model["routes"]


@pytest.mark.parametrize("body", [{}, {"choices": []}, {"choices": [{"message": {"content": 1}}]}, []])
def test_an_answer_of_another_kind_is_foreign(body):
    from app.client.message_reading import message_of

    with pytest.raises(ForeignAnswerError):
        message_of(body)
