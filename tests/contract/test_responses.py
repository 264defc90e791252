"""``/v1/responses`` on a scripted engine: items, events in OpenAI's order, refusals."""

from __future__ import annotations

import json

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from app.core.errors import OverloadedError, RequestTimeoutError
from app.core.parsing.tool_calls.reasoning import THINK
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate
from tests.contract.named_events import named_events_of
from tests.contract.reading import assert_envelope

RESPONSES = "/v1/responses"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": ["integer", "null"]}}}
TOOLS = [{"type": "function", "name": "weather", "description": "tells it", "parameters": SCHEMA, "strict": False}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn", "n": null}}</tool_call>'
EVENT = TypeAdapter(ResponseStreamEvent)
# What a streamed item goes through, by its type.
LIFE = {
    "message": ["output_text.delta", "output_text.done", "content_part.done"],
    "reasoning": ["reasoning_text.delta", "reasoning_text.done", "content_part.done"],
    "function_call": ["function_call_arguments.delta", "function_call_arguments.done"],
}


def ask(client, **fields):
    return client.post(RESPONSES, json={"input": "hi", **fields})


def streamed(response):
    """The last event's response; that the events before it tell the same in OpenAI's order is checked."""
    events = named_events_of(response)
    for event in events:
        EVENT.validate_python(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    names = [event["type"].removeprefix("response.") for event in events]
    assert names[:2] == ["created", "in_progress"] and names[-1] in ("completed", "incomplete")
    at = 2
    for index, item in enumerate(events[-1]["response"]["output"]):
        at = follow(events, names, at, index, item)
    assert at == len(events) - 1
    return events[-1]["response"]


def follow(events, names, at, index, item):
    """Checks the events of one item, and returns where the next one's begin."""
    assert names[at] == "output_item.added" and events[at]["item"]["id"] == item["id"]
    assert events[at]["item"]["status"] == "in_progress"
    delta, *ends = LIFE[item["type"]]
    first = at + (1 if item["type"] == "function_call" else 2)
    last = first
    while names[last] == delta:
        assert (events[last]["item_id"], events[last]["output_index"]) == (item["id"], index)
        last += 1
    text = "".join(event["delta"] for event in events[first:last])
    assert names[last : last + len(ends) + 1] == [*ends, "output_item.done"]
    whole = item["arguments"] if item["type"] == "function_call" else item["content"][0]["text"]
    assert text == whole == (events[last].get("text") or events[last].get("arguments", ""))
    assert events[last + len(ends)]["item"] == item
    return last + len(ends) + 1


def without_ids(response):
    """What does not differ from one request to the next."""
    output = [{**item, "id": None, "call_id": None} for item in response["output"]]
    return {**response, "id": None, "created_at": None, "output": output}


def test_an_answer_is_openais_response_and_nothing_else(client):
    response = ask(client, metadata={"a": "b"}, instructions="be brief")
    body = response.get_json()
    request_id = response.headers["X-Request-Id"]
    text = {"type": "output_text", "text": "Hello,\nworld", "annotations": [], "logprobs": []}
    message = {"id": f"msg_{request_id}_0", "type": "message", "role": "assistant", "status": "completed"}
    assert body["output"] == [{**message, "content": [text]}]
    assert body["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 3,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 13,
    }
    assert (body["id"], body["object"], body["status"]) == (f"resp_{request_id}", "response", "completed")
    assert (body["error"], body["incomplete_details"], body["previous_response_id"]) == (None, None, None)
    assert (body["store"], body["metadata"], body["instructions"]) == (False, {"a": "b"}, "be brief")
    assert set(body) <= set(Response.model_fields) | {"store"}
    assert Response.model_validate(body).output_text == "Hello,\nworld"


@pytest.mark.parametrize("finish_reason", ["stop", "length"])
@pytest.mark.parametrize(
    "script",
    [
        ["Hello"],
        [],
        ["Let me ", "think.\n</th", "ink>\n\n", "Yes. ", CALL[:9], CALL[9:40], CALL[40:], "\n", CALL],
        ["thinks and thinks"],
        ["</think>", CALL],
    ],
)
@pytest.mark.parametrize("is_thinking", [False, True])
def test_a_stream_is_the_whole_answer_in_pieces(client, world, script, is_thinking, finish_reason):
    if is_thinking:
        world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script, world.inference.finish_reason = script, finish_reason
    whole = ask(client, tools=TOOLS)
    assert whole.status_code == 200
    assert without_ids(streamed(ask(client, tools=TOOLS, stream=True))) == without_ids(whole.get_json())


def test_the_kinds_of_items_stand_in_their_order(client, world):
    world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = ["Hm.</think>", "I look.", CALL]
    body = ask(client, tools=TOOLS).get_json()
    thought, said, call = body["output"]
    assert (thought["type"], thought["content"]) == ("reasoning", [{"type": "reasoning_text", "text": "Hm."}])
    assert said["content"][0]["text"] == "I look."
    assert (call["name"], json.loads(call["arguments"])) == ("weather", {"city": "Bonn", "n": None})


@pytest.mark.parametrize("is_streamed", [False, True])
def test_an_answer_that_was_cut_is_incomplete_with_its_last_item(client, world, is_streamed):
    world.inference.script, world.inference.finish_reason = ["I look. ", CALL[:-28]], "length"
    response = ask(client, tools=TOOLS, max_output_tokens=20, stream=is_streamed)
    body = streamed(response) if is_streamed else response.get_json()
    assert (body["status"], body["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})
    assert [item["status"] for item in body["output"]] == ["completed", "incomplete"]
    assert body["output"][1]["arguments"] == '{"city": "Bo'


def test_an_answer_without_anything_is_an_empty_message(client, world):
    world.inference.script = []
    assert Response.model_validate(ask(client).get_json()).output_text == ""
    assert len(streamed(ask(client, stream=True))["output"]) == 1


@pytest.mark.parametrize("fields", [{"top_logprobs": 1}, {"include": ["message.output_text.logprobs"]}])
def test_log_probabilities_come_with_the_text(client, world, fields):
    whole = ask(client, **fields).get_json()["output"][0]["content"][0]["logprobs"]
    assert "".join(entry["token"] for entry in whole) == "Hello,\nworld"
    assert world.inference.jobs[0].params.num_logprobs == fields.get("top_logprobs", 0)
    events = named_events_of(ask(client, stream=True, **fields))
    pieces = [entry for event in events if event["type"].endswith("text.delta") for entry in event["logprobs"]]
    [done] = [event for event in events if event["type"].endswith("text.done")]
    assert pieces == done["logprobs"] == whole == events[-1]["response"]["output"][0]["content"][0]["logprobs"]


def test_log_probabilities_of_an_item_are_the_same_in_its_last_event_and_in_the_response(client, world):
    world.inference.script = ["I look. ", CALL, "\nand so on"]
    response = streamed(ask(client, tools=TOOLS, top_logprobs=0, stream=True))
    whole = ask(client, tools=TOOLS, top_logprobs=0).get_json()
    for said in (response, whole):
        assert said["output"][0]["content"][0]["logprobs"]


def test_items_reach_the_template_as_chats_messages(client, world):
    items = [
        {"role": "user", "content": "hi"},
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "be kind"}]},
        {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "id": "m", "status": "completed", "content": "I look."},
        {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": '{"city": null}'},
        {"type": "function_call", "call_id": "c2", "name": "other", "arguments": "{}", "status": "completed"},
        {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_text", "text": "rain"}]},
        {"type": "function_call_output", "call_id": "c2", "output": ""},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Rain.", "annotations": []}]},
        {"role": "user", "content": "and now?"},
    ]
    response = ask(client, input=items, instructions="be brief", tools=TOOLS)
    assert response.status_code == 200, response.get_json()

    def call(call_id, name, arguments):
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    calls = [call("c1", "weather", {"city": None}), call("c2", "other", {})]
    assert world.model.encoded == [
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi"},
            {"role": "system", "content": "be kind"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": calls},
            {"role": "tool", "content": "rain", "tool_call_id": "c1", "name": "weather"},
            {"role": "tool", "content": "", "tool_call_id": "c2", "name": "other"},
            {"role": "assistant", "content": "Rain."},
            {"role": "user", "content": "and now?"},
        ]
    ]


def test_thoughts_between_calls_are_turns_of_their_own(client, world):
    thought = {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]}
    call = {"type": "function_call", "call_id": "c", "name": "weather", "arguments": "{}"}
    items = [{"role": "user", "content": "hi"}, thought, call, thought, call]
    assert ask(client, input=items, tools=TOOLS).status_code == 200
    assert [message.get("reasoning_content") for message in world.model.encoded[0]] == [None, "hm", "hm"]


def test_an_answer_may_come_back_as_it_was(client, world):
    world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = ["Hm.</think>I look.", CALL]
    output = ask(client, tools=TOOLS, top_logprobs=0).get_json()["output"]
    answered = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "rain"}
    items = [{"role": "user", "content": "hi"}, *output, answered]
    assert ask(client, input=items, tools=TOOLS).status_code == 200
    assert world.model.encoded[-1][-1]["name"] == "weather"


@pytest.mark.parametrize(
    ("fields", "is_required", "is_parallel", "names"),
    [
        ({"tool_choice": "required"}, True, True, ["weather", "other"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, True, False, ["weather", "other"]),
        ({"tool_choice": {"type": "function", "name": "other"}}, True, False, ["other"]),
        ({"tool_choice": "auto", "parallel_tool_calls": False}, False, False, ["weather", "other"]),
    ],
)
def test_calls_are_held_to_what_the_choice_asks_for(client, world, fields, is_required, is_parallel, names):
    tools = [*TOOLS, {"type": "function", "name": "other", "parameters": None}]
    body = ask(client, tools=tools, **fields).get_json()
    rules = json.loads(world.inference.jobs[-1].params.grammar.constraint.source)
    assert (rules["is_required"], rules["is_parallel"], list(rules["schemas"])) == (is_required, is_parallel, names)
    assert body["tool_choice"] == fields["tool_choice"] and [tool["name"] for tool in body["tools"]] == [
        "weather",
        "other",
    ]


def test_a_strict_function_and_a_format_are_followed(client, world):
    assert ask(client, tools=[{**TOOLS[0], "strict": True}]).status_code == 200
    assert world.inference.jobs[-1].params.grammar.constraint.kind == "tool_calls"
    wanted = {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}
    body = ask(client, text={"format": wanted, "verbosity": "low"}).get_json()
    assert json.loads(world.inference.jobs[-1].params.grammar.constraint.source) == SCHEMA
    assert body["text"] == {"format": wanted}
    assert ask(client, text={"format": {"type": "json_object"}}).status_code == 200
    assert json.loads(world.inference.jobs[-1].params.grammar.constraint.source) == {"type": "object"}


def test_sampling_and_effort_reach_the_engine(client, world):
    fields = {"temperature": 0.5, "top_p": 0.9, "seed": 7, "max_output_tokens": 9, "reasoning": {"effort": "low"}}
    body = ask(client, **fields, truncation="disabled", store=False, background=False, user="u").get_json()
    params = world.inference.jobs[0].params
    assert (params.temperature, params.top_p, params.seed, params.max_new_tokens) == (0.5, 0.9, 7, 9)
    assert world.model.arguments == [{"reasoning_effort": "low"}]
    assert (body["temperature"], body["max_output_tokens"], body["reasoning"]["effort"]) == (0.5, 9, "low")
    assert ask(client).status_code == 200
    assert world.inference.jobs[1].params.temperature == 1.0


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "invalid_parameter"),
        ({"input": ""}, "input", "invalid_parameter"),
        ({"input": []}, "input", "invalid_parameter"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input", "unsupported_parameter"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input", "unsupported_parameter"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input", "unsupported_parameter"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input", "invalid_parameter"),
        ({"input": [{"type": "function_call", "call_id": "c", "name": "f"}]}, "input", "invalid_parameter"),
        (
            {"input": [{"type": "function_call", "call_id": "c", "name": "f", "arguments": "["}]},
            "input",
            "invalid_parameter",
        ),
        ({"input": "x" * 100}, "input", "context_length_exceeded"),
        ({"previous_response_id": "resp_1"}, "previous_response_id", "unsupported_parameter"),
        ({"conversation": {"id": "c"}}, "conversation", "unsupported_parameter"),
        ({"prompt": {"id": "p"}}, "prompt", "unsupported_parameter"),
        ({"store": True}, "store", "invalid_parameter"),
        ({"background": True}, "background", "invalid_parameter"),
        ({"truncation": "auto"}, "truncation", "invalid_parameter"),
        ({"include": ["file_search_call.results"]}, "include", "invalid_parameter"),
        ({"tools": [{"type": "web_search"}]}, "tools", "unsupported_parameter"),
        ({"tools": [{"type": "mcp", "server_label": "a"}]}, "tools", "unsupported_parameter"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools", "invalid_parameter"),
        ({"tool_choice": {"type": "web_search_preview"}}, "tool_choice", "unsupported_parameter"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice", "invalid_parameter"),
        ({"text": {"format": {"type": "grammar"}}}, "text", "invalid_parameter"),
        (
            {"text": {"format": {"type": "json_schema", "name": "a", "schema": {"impossible": 1}}}},
            "text",
            "invalid_parameter",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_parameter"),
        ({"temperature": 0.0001}, "temperature", "invalid_parameter"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options", "invalid_parameter"),
        ({"messages": []}, "messages", "unsupported_parameter"),
        ({"max_tokens": 5}, "max_tokens", "unsupported_parameter"),
    ],
)
def test_what_we_cannot_do_is_refused_by_name(client, world, fields, param, code):
    error = assert_envelope(ask(client, **fields), 400, code, param)
    assert "messages" not in error["message"] or "messages" in fields
    assert world.num_places() == 0


def test_a_template_without_tools_refuses_them_and_their_answers(client, world):
    world.model.has_tool_template = False
    assert_envelope(ask(client, tools=TOOLS), 400, "unsupported_parameter", "tools")
    answered = [{"type": "function_call_output", "call_id": "c", "output": "x"}]
    assert_envelope(ask(client, input=answered), 400, "unsupported_parameter", "input")


def test_failures_are_told_in_openais_envelope(client, world, make_world):
    assert_envelope(ask(client, model="x"), 404, "model_not_found", "model")
    assert_envelope(ask(client_of(make_world(api_keys="k"))), 401, "invalid_api_key")
    assert_envelope(ask(client_of(make_world("loading"))), 503, "loading")
    world.inference.script = [RequestTimeoutError("late")]
    assert_envelope(ask(client), 504, "request_timeout")


def test_a_stream_that_fails_in_its_middle_ends_with_a_failed_response(client, world):
    world.inference.script = ["so far", 0.2, OverloadedError("gone")]
    *_, delta, failed = named_events_of(ask(client, stream=True))
    assert (delta["type"], failed["type"]) == ("response.output_text.delta", "response.failed")
    assert failed["response"]["status"] == "failed" and failed["sequence_number"] == delta["sequence_number"] + 1
    assert failed["response"]["error"] == {"code": "server_error", "message": "gone"}


def test_a_stream_that_fails_before_its_response_begins_ends_with_an_error(client, world):
    gate = world.inference.before_start = Gate()
    response = ask(client, stream=True)
    chunks = response.iter_encoded()
    assert next(chunks) == b": ping\n\n"
    world.inference.jobs[0].cancel(OverloadedError("gone"))
    rest = b"".join(chunks).replace(b": ping\n\n", b"")
    gate.set()
    assert rest.startswith((b"event: error\n", b"event: response.created\n")) and b"gone" in rest
