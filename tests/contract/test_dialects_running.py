"""``/v1/messages`` and ``/v1/responses`` on the real engine with a tiny model: stop sequences, schemas, streams."""

from __future__ import annotations

import json

import pytest

from tests.contract.named_events import named_events_of
from tests.contract.real import RealWorld

HI = [{"role": "user", "content": "hi"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Bonn", "Köln"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def world(model_folder):
    world = RealWorld(model_folder("qwen2"), max_batch_size=2)
    tokenizer = world.inference.model.tokenizer
    tokenizer.chat_template = "{{ tools | tojson }}" + tokenizer.chat_template
    yield world
    world.stop()


@pytest.fixture
def client(world):
    return world.client()


def said(response, *, is_streamed):
    """The text of a message, whole or joined."""
    if not is_streamed:
        return "".join(block["text"] for block in response.get_json()["content"])
    deltas = [event["delta"] for event in named_events_of(response) if event["type"] == "content_block_delta"]
    return "".join(delta["text"] for delta in deltas)


@pytest.mark.slow
@pytest.mark.parametrize("is_streamed", [False, True])
def test_the_stop_sequence_that_ended_a_message_is_told(client, is_streamed):
    fields = {"messages": HI, "max_tokens": 40, "seed": 3}
    text = said(client.post("/v1/messages", json=fields), is_streamed=False)
    stop = next(text[at] for at in range(4, len(text)) if text[at].isascii() and text.index(text[at]) == at)
    body = {**fields, "stop_sequences": ["never", stop], "stream": is_streamed}
    response = client.post("/v1/messages", json=body)
    assert said(response, is_streamed=is_streamed) == text[: text.index(stop)]
    end = named_events_of(response)[-2]["delta"] if is_streamed else response.get_json()
    assert (end["stop_reason"], end["stop_sequence"]) == ("stop_sequence", stop)


@pytest.mark.parametrize("seed", range(4))
def test_a_stream_is_the_whole_answer_on_every_route(client, seed):
    fields = {"messages": HI, "max_tokens": 16, "seed": seed}
    text = said(client.post("/v1/messages", json=fields), is_streamed=False)
    assert said(client.post("/v1/messages", json={**fields, "stream": True}), is_streamed=True) == text
    chat = client.post("/v1/chat/completions", json=fields).get_json()
    assert chat["choices"][0]["message"]["content"] == text
    asked = {"input": "hi", "max_output_tokens": 16, "seed": seed}
    whole = client.post("/v1/responses", json=asked).get_json()
    last = named_events_of(client.post("/v1/responses", json={**asked, "stream": True}))[-1]["response"]
    assert whole["output"][0]["content"] == last["output"][0]["content"] and whole["usage"] == {
        **last["usage"],
        "input_tokens_details": whole["usage"]["input_tokens_details"],
    }
    assert whole["output"][0]["content"][0]["text"] == text


def test_a_forced_call_conforms_to_its_schema_on_every_route(client):
    tool = {"name": "weather", "input_schema": SCHEMA}
    choice = {"type": "tool", "name": "weather"}
    body = {"messages": HI, "max_tokens": 200, "tools": [tool], "tool_choice": choice}
    message = client.post("/v1/messages", json=body).get_json()
    [call] = message["content"]
    function = {"type": "function", "name": "weather", "parameters": SCHEMA, "strict": True}
    asked = {"input": "hi", "tools": [function], "tool_choice": "required", "parallel_tool_calls": False}
    response = client.post("/v1/responses", json=asked).get_json()
    [item] = response["output"]
    assert (message["stop_reason"], response["status"]) == ("tool_use", "completed")
    for given in (call["input"], json.loads(item["arguments"])):
        assert given["city"] in ("Bonn", "Köln") and 1 <= given["days"] <= 9 and len(given) == 2


def test_a_format_is_followed_and_one_that_cannot_be_is_refused_with_its_field(client):
    wanted = {"type": "json_schema", "name": "a", "schema": SCHEMA}
    answer = client.post("/v1/responses", json={"input": "hi", "text": {"format": wanted}}).get_json()
    assert set(json.loads(answer["output"][0]["content"][0]["text"])) == {"city", "days"}
    bad = {"type": "object", "properties": {"a": {"not": {}}}}
    refused = client.post("/v1/responses", json={"input": "hi", "text": {"format": {**wanted, "schema": bad}}})
    assert refused.status_code == 400 and refused.get_json()["error"]["param"] == "text"
    body = {"messages": HI, "max_tokens": 9, "output_config": {"format": {"type": "json_schema", "schema": bad}}}
    refused = client.post("/v1/messages", json=body)
    assert refused.status_code == 400
    assert refused.get_json()["error"]["message"].startswith("output_config: #/properties/a")
