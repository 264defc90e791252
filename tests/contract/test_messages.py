"""``/v1/messages`` and ``count_tokens`` on a scripted engine: Anthropic's shapes, events and errors."""

from __future__ import annotations

import json

import pytest

from app.core.errors import OverloadedError, RequestTimeoutError
from app.core.parsing.tool_calls.reasoning import THINK
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate, ScriptedModel
from tests.contract.named_events import named_events_of

MESSAGES, COUNT = "/v1/messages", "/v1/messages/count_tokens"
HI = [{"role": "user", "content": "hi"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": ["integer", "null"]}}}
TOOLS = [{"name": "weather", "description": "tells it", "input_schema": SCHEMA}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn", "n": null}}</tool_call>'
CALLED = {"type": "tool_use", "id": "c", "name": "weather", "input": {}}
LATER = '<tool_call>{"name": "weather", "arguments": {}}</tool_call>'


def ask(client, **fields):
    return client.post(MESSAGES, json={"messages": HI, "max_tokens": 32, **fields})


def refused(response, status=400, kind="invalid_request_error"):
    """The message of what is exactly Anthropic's envelope."""
    assert response.status_code == status, response.get_data(as_text=True)
    body = response.get_json()
    assert set(body) == {"type", "error", "request_id"} and body["type"] == "error"
    assert set(body["error"]) == {"type", "message"} and body["error"]["type"] == kind
    assert body["request_id"] == response.headers["X-Request-Id"]
    assert response.headers["Request-Id"] == body["request_id"]
    return body["error"]["message"]


def joined(events):
    """The message of a stream, put together as Anthropic's client does it; the order of events is checked."""
    assert [event["type"] for event in events[:1] + events[-2:]] == ["message_start", "message_delta", "message_stop"]
    message, texts = dict(events[0]["message"]), []
    for event in events[1:-2]:
        if event["type"] == "content_block_start":
            assert event["index"] == len(texts) == len(message["content"])
            texts.append("")
            message["content"] = [*message["content"], dict(event["content_block"])]
        elif event["type"] == "content_block_delta":
            assert event["index"] == len(texts) - 1
            grow(message["content"][-1], event["delta"], texts)
        else:
            assert event == {"type": "content_block_stop", "index": len(texts) - 1}
            if message["content"][-1]["type"] == "tool_use":
                message["content"][-1]["input"] = json.loads(texts[-1])
    return {**message, **events[-2]["delta"], "usage": events[-2]["usage"]}


def grow(block, delta, texts):
    match delta["type"]:
        case "text_delta":
            block["text"] += delta["text"]
        case "thinking_delta":
            block["thinking"] += delta["thinking"]
        case "signature_delta":
            block["signature"] = delta["signature"]
        case "input_json_delta":
            texts[-1] += delta["partial_json"]


def without_ids(message):
    content = [{**block, "id": None} for block in message["content"]]
    return {**message, "id": None, "content": content}


def test_an_answer_is_anthropics_message_and_nothing_else(client):
    response = ask(client)
    usage = {"input_tokens": 2, "output_tokens": 3, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
    assert response.get_json() == {
        "id": f"msg_{response.headers['X-Request-Id']}",
        "type": "message",
        "role": "assistant",
        "model": "scripted",
        "content": [{"type": "text", "text": "Hello,\nworld"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }
    assert {"X-Queue-Ms", "X-Ttft-Ms", "X-Total-Ms"} <= set(response.headers.keys())
    assert response.headers["Request-Id"] == response.headers["X-Request-Id"]


@pytest.mark.parametrize(
    "script",
    [
        ["Hello"],
        [],
        ["Let me ", "think.\n</th", "ink>\n\n", "Yes. ", CALL[:9], CALL[9:40], CALL[40:], "\n", LATER],
        ["thinks and thinks"],
        ["</think>", CALL],
    ],
)
@pytest.mark.parametrize("is_thinking", [False, True])
def test_a_stream_is_the_whole_answer_in_pieces(client, world, script, is_thinking):
    if is_thinking:
        world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = script
    whole = ask(client, tools=TOOLS)
    assert whole.status_code == 200
    streamed = joined(named_events_of(ask(client, tools=TOOLS, stream=True)))
    assert without_ids(streamed) == without_ids(whole.get_json())


def test_the_kinds_of_blocks_stand_in_their_order(client, world):
    world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = ["Hm.</think>", "I look.", CALL]
    thought, said, call = ask(client, tools=TOOLS).get_json()["content"]
    assert thought == {"type": "thinking", "thinking": "Hm.", "signature": "unsigned"}
    assert said == {"type": "text", "text": "I look."}
    assert call == {"type": "tool_use", "id": call["id"], "name": "weather", "input": {"city": "Bonn", "n": None}}


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(
    ("script", "reason", "stop", "told"),
    [
        (["a"], "stop", None, ("end_turn", None)),
        (["a"], "length", None, ("max_tokens", None)),
        (["a"], "stop", "###", ("stop_sequence", "###")),
        ([CALL], "stop", None, ("tool_use", None)),
        ([CALL], "length", None, ("max_tokens", None)),
    ],
)
def test_why_an_answer_ended_is_told(client, world, script, reason, stop, told, is_streamed):
    inference = world.inference
    inference.script, inference.finish_reason, inference.stopped_by = script, reason, stop
    response = ask(client, tools=TOOLS, stop_sequences=["###", "b"], stream=is_streamed)
    message = joined(named_events_of(response)) if is_streamed else response.get_json()
    assert (message["stop_reason"], message["stop_sequence"]) == told
    assert world.inference.jobs[0].params.stop == ("###", "b")


def test_a_call_that_was_cut_shows_what_there_is_of_its_input(client, world):
    world.inference.script, world.inference.finish_reason = [CALL[:-28]], "length"
    message = ask(client, tools=TOOLS).get_json()
    [call] = message["content"]
    assert message["stop_reason"] == "max_tokens" and call["input"] == {"city": "Bo"}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (r'{"city": "x\ud83d"}', {"city": "x\ufffd"}),
        ('{"n": 1e999, "m": [-1e999, 1.5]}', {"n": None, "m": [None, 1.5]}),
        ('{"n": ' + "9" * 400 + "}", {"n": None}),
        ('{"n": 12345678901234567890}', {"n": 12345678901234567890}),
        ('{"a": 1, "a": 2}', {"a": 2}),
        ("[1]", {}),
    ],
)
def test_input_is_an_object_that_every_reader_of_json_takes(client, world, arguments, shown):
    world.inference.script = [f'<tool_call>{{"name": "weather", "arguments": {arguments}}}</tool_call>']
    response = ask(client, tools=TOOLS)
    calls = [block for block in response.get_json()["content"] if block["type"] == "tool_use"]
    assert response.status_code == 200 and [call["input"] for call in calls] == ([shown] if shown else [])
    assert named_events_of(ask(client, tools=TOOLS, stream=True))[-1]["type"] == "message_stop"


def test_turns_reach_the_template_as_chats_messages(client, world):
    result = {"type": "tool_result", "tool_use_id": "c1", "is_error": True}
    turns = [
        *HI,
        {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "unsigned"},
                {"type": "redacted_thinking", "data": "xx"},
                {"type": "text", "text": "I look.", "citations": None},
                {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": None}, "caller": None},
            ],
        },
        {
            "role": "user",
            "content": [
                {**result, "content": [{"type": "text", "text": "no "}, {"type": "text", "text": "rain"}]},
                {**result, "tool_use_id": "c2"},
                {"type": "text", "text": "and "},
                {"type": "text", "text": "now?"},
            ],
        },
    ]
    response = ask(client, messages=turns, system=[{"type": "text", "text": "be "}, {"type": "text", "text": "brief"}])
    assert response.status_code == 200, response.get_json()
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": {"city": None}}}
    assert world.model.encoded == [
        [
            {"role": "system", "content": "be brief"},
            {"role": "user", "content": "hi\n\na"},
            {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": [call]},
            {"role": "tool", "content": "no rain", "tool_call_id": "c1", "name": "weather"},
            {"role": "tool", "content": "", "tool_call_id": "c2"},
            {"role": "user", "content": "and now?"},
        ]
    ]


def test_a_last_turn_of_the_assistants_is_gone_on_with(client, world):
    turns = [*HI, {"role": "assistant", "content": [{"type": "text", "text": "It is "}]}]
    assert ask(client, messages=turns).get_json()["content"] == [{"type": "text", "text": "Hello,\nworld"}]
    counted = client.post(COUNT, json={"messages": turns})
    assert world.model.arguments == 2 * [{"add_generation_prompt": False, "continue_final_message": True}]
    assert counted.status_code == 200


def test_an_answer_may_come_back_as_it_was(client, world):
    world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = ["Hm.</think>I look.", CALL]
    content = ask(client, tools=TOOLS).get_json()["content"]
    answered = {"type": "tool_result", "tool_use_id": content[-1]["id"], "content": "rain"}
    turns = [*HI, {"role": "assistant", "content": content}, {"role": "user", "content": [answered]}]
    assert ask(client, messages=turns, tools=TOOLS).status_code == 200
    assert world.model.encoded[-1][-1]["name"] == "weather"


@pytest.mark.parametrize(
    ("choice", "is_required", "is_parallel", "names"),
    [
        ({"type": "any"}, True, True, ["weather", "other"]),
        ({"type": "any", "disable_parallel_tool_use": True}, True, False, ["weather", "other"]),
        ({"type": "tool", "name": "other"}, True, False, ["other"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, False, False, ["weather", "other"]),
    ],
)
def test_calls_are_held_to_what_the_choice_asks_for(client, world, choice, is_required, is_parallel, names):
    tools = [*TOOLS, {"name": "other", "input_schema": {"type": "object"}}]
    assert ask(client, tools=tools, tool_choice=choice).status_code == 200
    rules = json.loads(world.inference.jobs[-1].params.grammar.constraint.source)
    assert (rules["is_required"], rules["is_parallel"], list(rules["schemas"])) == (is_required, is_parallel, names)


def test_tools_are_shown_to_the_template_unless_none_is_to_be_called(client, world):
    assert ask(client, tools=TOOLS).status_code == 200
    assert ask(client, tools=TOOLS, tool_choice={"type": "none"}).status_code == 200
    function = {"name": "weather", "description": "tells it", "parameters": SCHEMA}
    assert world.model.tools == [[{"type": "function", "function": function}], None]


def test_a_strict_tool_and_a_schema_for_the_answer_are_followed(client, world):
    assert ask(client, tools=[{**TOOLS[0], "strict": True}]).status_code == 200
    assert world.inference.jobs[-1].params.grammar.constraint.kind == "tool_calls"
    assert ask(client, output_config={"format": {"type": "json_schema", "schema": SCHEMA}}).status_code == 200
    assert json.loads(world.inference.jobs[-1].params.grammar.constraint.source) == SCHEMA


def test_sampling_reaches_the_engine(client, world):
    fields = {"temperature": 0.5, "top_p": 0.9, "top_k": 3, "seed": 7, "max_tokens": 9}
    notes = {"metadata": {"user_id": "u"}, "service_tier": "auto", "cache_control": {"type": "ephemeral"}}
    headers = {"anthropic-version": "2023-06-01", "anthropic-beta": "x"}
    assert client.post(MESSAGES, json={"messages": HI, **fields, **notes}, headers=headers).status_code == 200
    params = world.inference.jobs[0].params
    assert (params.temperature, params.top_p, params.top_k, params.seed, params.max_new_tokens) == (0.5, 0.9, 3, 7, 9)
    assert ask(client).status_code == 200
    params = world.inference.jobs[1].params
    assert (params.temperature, params.top_p, params.top_k) == (1.0, 1.0, 0)


@pytest.mark.parametrize(
    ("thinking", "arguments"),
    [
        ({"type": "enabled", "budget_tokens": 1024}, {"enable_thinking": True, "thinking_budget": 1024}),
        ({"type": "disabled"}, {"enable_thinking": False}),
        ({"type": "adaptive"}, {}),
        (None, {}),
    ],
)
def test_thinking_reaches_templates_that_know_it(client, world, thinking, arguments):
    world.model.forms.reasoning = THINK
    world.model.template_names = ("enable_thinking", "thinking_budget")
    assert ask(client, thinking=thinking).status_code == 200
    assert world.model.arguments == [arguments]


def test_a_model_that_does_not_reason_is_not_told_to(client):
    assert "thinking" in refused(ask(client, thinking={"type": "enabled", "budget_tokens": 9}))
    assert ask(client, thinking={"type": "disabled"}).status_code == 200


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"messages": [{"role": "user", "content": []}]}, "messages.0.content"),
        ({"messages": [*HI, {"role": "assistant", "content": ""}]}, "messages"),
        ({"messages": [*HI, {"role": "assistant", "content": [CALLED]}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "'image'"),
        ({"messages": [{"role": "user", "content": [{"type": "document", "source": {}}]}]}, "'document'"),
        ({"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a"}]}]}, "'tool_use'"),
        ({"messages": [*HI, {"role": "assistant", "content": [{"type": "server_tool_use"}]}]}, "'server_tool_use'"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": 1}]}]}, "messages.0.content.0.text"),
        ({"messages": [{"role": "user", "content": [{"text": "a"}]}]}, "messages.0.content.0.type"),
        ({"system": [{"type": "image"}]}, "'image'"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "'web_search_20250305'"),
        ({"tools": [{"name": "a b", "input_schema": {}}]}, "tools.0.name"),
        ({"tools": [{"name": "a"}]}, "tools.0.input_schema"),
        ({"tool_choice": {"type": "tool", "name": "x"}}, "tool_choice"),
        ({"tool_choice": {"type": "required"}}, "tool_choice.type"),
        ({"thinking": {"type": "enabled"}}, "thinking.budget_tokens"),
        ({"stop_sequences": [""]}, "stop_sequences"),
        ({"temperature": 0.0001}, "temperature"),
        ({"output_config": {"format": {"type": "json_schema", "schema": {"impossible": 1}}}}, "output_config"),
        ({"container": "x"}, "container"),
        ({"mcp_servers": []}, "mcp_servers"),
        ({"max_new_tokens": 1}, "max_new_tokens"),
        ({"messages": [{"role": "user", "content": "x" * 100}]}, "messages"),
    ],
)
def test_what_is_wrong_is_refused_by_name_in_anthropics_envelope(client, world, fields, named):
    assert named in refused(ask(client, **fields))
    assert named in refused(ask(client, stream=True, **fields))
    assert world.num_places() == 0


def test_threads_are_refused_in_the_words_that_make_clients_go_on_without_them(client):
    response = ask(client, thread={"type": "create"})
    error = response.get_json()["error"]
    assert (response.status_code, error["type"]) == (400, "invalid_request_error")
    assert error["details"] == {"error_code": "thread_unsupported_request"} and "thread" in error["message"]
    assert ask(client, thread=None).status_code == 200


def test_a_template_without_tools_refuses_them(client, world):
    world.model.has_tool_template = False
    assert refused(ask(client, tools=TOOLS)).startswith("tools: ")


@pytest.mark.parametrize("path", [MESSAGES, COUNT])
def test_every_kind_of_failure_is_told_in_anthropics_envelope(make_world, path):
    body = {"messages": HI} | ({"max_tokens": 5} if path == MESSAGES else {})
    keyed = client_of(make_world(api_keys="k", max_body_bytes=200))
    refused(keyed.post(path, json=body), 401, "authentication_error")
    key = {"X-Api-Key": "k"}
    assert keyed.post(path, json=body, headers=key).status_code == 200
    refused(keyed.post(path, json={**body, "model": "x"}, headers=key), 404, "not_found_error")
    refused(keyed.post(path, json={**body, "system": "x" * 300}, headers=key), 413, "request_too_large")
    refused(keyed.post(path, data="{", content_type="application/json", headers=key))
    refused(keyed.post(path, data="x", content_type="text/plain", headers=key), 415)
    refused(keyed.get(path, headers=key), 405)
    refused(keyed.post(path, json=body, headers={**key, "Sec-Fetch-Site": "cross-site"}), 403, "permission_error")
    loading = client_of(make_world("loading")).post(path, json=body)
    refused(loading, 503, "overloaded_error")
    assert int(loading.headers["Retry-After"]) >= 1


def test_an_engine_that_fails_or_is_late_is_told_in_anthropics_envelope(client, world):
    for failure, status, kind in ((RequestTimeoutError("late"), 504, "timeout_error"), (None, 500, "api_error")):
        world.inference.script = [failure]
        if failure is None:
            world.inference.refuse_with = ValueError("defect")
        response = ask(client)
        refused(response, status, kind)
        assert response.headers.get("X-Should-Retry") == ("false" if status == 504 else None)


def test_a_stream_that_fails_in_its_middle_ends_with_an_error_event(client, world):
    world.inference.script = ["so far", 0.2, OverloadedError("gone")]
    *events, error = named_events_of(ask(client, stream=True))
    assert [event["type"] for event in events] == ["message_start", "content_block_start", "content_block_delta"]
    assert error["type"] == "error" and error["error"] == {"type": "overloaded_error", "message": "gone"}


def test_silence_in_a_stream_is_filled_with_pings(client, world):
    gate = world.inference.before_start = Gate()
    response = ask(client, stream=True)
    chunks = response.iter_encoded()
    assert next(chunks) == b'event: ping\ndata: {"type": "ping"}\n\n'
    gate.set()
    assert b"".join(chunks).endswith(b'event: message_stop\ndata: {"type": "message_stop"}\n\n')


def test_tokens_are_counted_as_the_prompt_has_them_and_nothing_is_generated(client, world):
    body = {"messages": HI, "system": "be", "tools": TOOLS, "thinking": {"type": "adaptive"}}
    counted = client.post(COUNT, json=body)
    assert (counted.status_code, counted.get_json()) == (200, {"input_tokens": 4})
    assert world.inference.jobs == [] and world.num_places() == 0
    usage = ask(client, **body).get_json()["usage"]
    assert usage["input_tokens"] == 4
    assert "max_tokens" in refused(client.post(COUNT, json={**body, "max_tokens": 5}))


def test_the_servers_system_prompt_stands_in_front_where_there_is_none(make_world):
    world = make_world(model=ScriptedModel(), system_prompt="be kind")
    assert ask(client_of(world)).status_code == 200
    assert world.model.encoded[0][0] == {"role": "system", "content": "be kind"}
