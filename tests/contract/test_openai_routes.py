"""``/v1/completions`` and ``/v1/chat/completions`` on a scripted engine: fields, shapes, refusals."""

from __future__ import annotations

import json

import pytest

from app.core.parsing.tool_calls.reasoning import THINK
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate, ScriptedModel
from tests.contract.reading import DONE, assert_envelope, events_of

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}, "strict": False}}]
CALL = '<tool_call>{"name": "weather", "arguments": {"city": "Bonn"}}</tool_call>'


def complete(client, **fields):
    return client.post(COMPLETIONS, json={"prompt": "abc", **fields})


def chat(client, **fields):
    return client.post(CHAT, json={"messages": MESSAGES, **fields})


def test_a_completion_is_openais_object_and_nothing_else(client):
    response = complete(client)
    body = response.get_json()
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    assert body["choices"] == [{"text": "Hello,\nworld", "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert body["id"] == f"cmpl-{response.headers['X-Request-Id']}"
    assert {"X-Queue-Ms", "X-Ttft-Ms", "X-Total-Ms"} <= set(response.headers.keys())


def test_a_chat_completion_is_openais_object_and_nothing_else(client):
    body = chat(client).get_json()
    assert set(body) == {"id", "object", "created", "model", "system_fingerprint", "choices", "usage"}
    message = {"role": "assistant", "content": "Hello,\nworld", "refusal": None}
    assert body["choices"] == [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]


@pytest.mark.parametrize("send", [complete, chat])
def test_silence_means_openais_defaults_and_not_the_models(client, world, send):
    world.use_defaults(temperature=0.1, top_p=0.5, top_k=3, repetition_penalty=2.0)
    assert send(client).status_code == 200
    params = world.inference.jobs[0].params
    assert (params.temperature, params.top_p, params.top_k, params.repetition_penalty) == (1.0, 1.0, 0, 1.0)


def test_lengths_have_openais_names_and_defaults(client, world):
    complete(client)
    complete(client, max_tokens=9, min_tokens=2)
    chat(client)
    chat(client, max_tokens=5, max_completion_tokens=5)
    chat(client, max_completion_tokens=6)
    complete(client, max_tokens=600)
    chat(client, max_completion_tokens=63)
    lengths = [job.params.max_new_tokens for job in world.inference.jobs]
    assert lengths == [16, 9, 62, 5, 6, 61, 62]
    assert world.inference.jobs[1].params.min_new_tokens == 2


def test_a_chat_without_a_bound_may_use_the_rest_of_the_context(make_world):
    world = make_world(model=ScriptedModel(context_tokens=4096))
    assert chat(client_of(world)).status_code == 200
    assert complete(client_of(world)).status_code == 200
    assert [job.params.max_new_tokens for job in world.inference.jobs] == [4094, 16]


def test_a_chat_without_a_bound_ends_with_its_time_and_what_there_is(client, world):
    world.inference.script = ["so", " far", Gate()]
    late = {"X-Request-Timeout-S": "0.3"}
    whole = client.post(CHAT, json={"messages": MESSAGES}, headers=late)
    [choice] = whole.get_json()["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("so far", "length")
    *events, done = events_of(client.post(CHAT, json={"messages": MESSAGES, "stream": True}, headers=late))
    assert done == DONE
    assert events[-1]["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(("script", "fields"), [([Gate()], {}), (["so far", Gate()], {"max_tokens": 9})])
def test_a_chat_with_a_bound_or_without_a_token_is_late(client, world, script, fields):
    world.inference.script = script
    late = {"X-Request-Timeout-S": "0.2"}
    response = client.post(CHAT, json={"messages": MESSAGES, **fields}, headers=late)
    assert_envelope(response, 504, "request_timeout")


def test_extras_of_other_servers_reach_the_engine(client, world):
    extras = {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "typical_p": 0.9}
    assert complete(client, **extras, stop_token_ids=[7], ignore_eos=True).status_code == 200
    params = world.inference.jobs[0].params
    assert {name: getattr(params, name) for name in extras} == extras
    assert params.stop_token_ids == {7} and params.ignore_eos


@pytest.mark.parametrize("send", [complete, chat])
def test_fields_that_only_describe_the_request_are_taken(client, send):
    notes = {"user": "u1", "metadata": {"a": "b"}, "store": False, "service_tier": "auto"}
    assert send(client, **notes).status_code == 200


@pytest.mark.parametrize(
    ("send", "field", "value"),
    [
        (complete, "store", True),
        (complete, "stream_options", {"include_usage": True}),
        (complete, "max_tokens", 0),
        (complete, "logprobs", 6),
        (complete, "logprobs", True),
        (complete, "n", 17),
        (complete, "best_of", 17),
        (complete, "prompt", []),
        (complete, "prompt", [[]]),
        (complete, "prompt", [1114112]),
        (complete, "prompt", [-1]),
        (complete, "prompt", ["a", 1]),
        (complete, "prompt", ["a"] * 65),
        (complete, "prompt", ""),
        (chat, "top_logprobs", 2),
        (chat, "logprobs", 2),
        (chat, "messages", []),
        (chat, "messages", [{"role": "robot", "content": "a"}]),
        (chat, "messages", [{"role": "user"}]),
        (chat, "tool_choice", "required"),
        (chat, "tools", [{"type": "function", "function": {"name": "a b"}}]),
    ],
)
def test_what_we_cannot_do_is_refused_by_name(client, world, send, field, value):
    assert_envelope(send(client, **{field: value}), 400, "invalid_parameter", field)
    assert world.num_places() == 0


@pytest.mark.parametrize(
    ("send", "field"), [(complete, "max_new_tokens"), (complete, "messages"), (chat, "prompt"), (chat, "functions")]
)
def test_unknown_fields_are_refused_by_name(client, send, field):
    assert_envelope(send(client, **{field: 1}), 400, "unsupported_parameter", field)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 3, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"prompt": ["a"] * 20, "n": 16}, "prompt"),
        ({"suffix": "s", "prompt": ["a"]}, "suffix"),
        ({"suffix": "s", "echo": True}, "echo"),
        ({"min_tokens": 2, "response_format": {"type": "json_object"}}, "min_tokens"),
        ({"min_tokens": 17}, "min_tokens"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(client, fields, param):
    response = complete(client, **fields)
    assert response.status_code == 400 and response.get_json()["error"]["param"] == param


def test_best_of_returns_the_best_by_mean_log_probability(client, world):
    world.inference.scripts = {0: ["zz"], 1: ["aaaa"], 2: ["mm"]}
    body = complete(client, best_of=3, n=2, seed=1).get_json()
    assert [(choice["index"], choice["text"]) for choice in body["choices"]] == [(0, "aaaa"), (1, "mm")]
    assert all(choice["logprobs"] is None for choice in body["choices"])


def test_a_suffix_is_an_infilling_prompt_with_its_own_end_tokens(client, world):
    assert complete(client, suffix="xyz").get_json()["choices"][0]["text"] == "Hello,\nworld"
    job = world.inference.jobs[0]
    assert job.prompt_ids == [ord(character) for character in "abc|xyz"]
    assert job.params.stop_token_ids == {9}
    world.model.has_infill = False
    assert_envelope(complete(client, suffix="xyz"), 400, "unsupported_parameter", "suffix")


def test_echoed_log_probabilities_begin_with_the_prompt(client, world):
    world.inference.script = ["Z"]
    choice = complete(client, echo=True, logprobs=1).get_json()["choices"][0]
    assert choice["text"] == "abcZ"
    assert choice["logprobs"]["tokens"] == ["a", "b", "c", "Z"]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3]
    assert choice["logprobs"]["token_logprobs"] == [None, -0.98, -0.99, -0.9]
    streamed = events_of(complete(client, echo=True, logprobs=1, stream=True))[:-1]
    assert streamed[0]["choices"][0]["text"].startswith("abc")
    assert [token for event in streamed for token in (event["choices"][0]["logprobs"] or {"tokens": []})["tokens"]] == [
        *"abcZ"
    ]


def test_a_stream_ends_with_reason_usage_and_done(client):
    *chunks, usage, done = events_of(complete(client, stream=True, stream_options={"include_usage": True}))
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks][-1] == "stop"
    assert all(chunk["usage"] is None for chunk in chunks)
    assert usage["choices"] == [] and usage["usage"]["completion_tokens"] == 3
    assert done == DONE


def test_a_chat_stream_begins_with_the_role(client):
    first, *chunks, last, done = events_of(chat(client, stream=True))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "Hello,\nworld"
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "stop")
    assert "usage" not in first and done == DONE


def test_streams_are_events_whatever_accept_says(client):
    response = client.post(CHAT, json={"messages": MESSAGES, "stream": True}, headers={"Accept": "text/plain"})
    assert response.mimetype == "text/event-stream"


def test_messages_reach_the_template_in_its_own_form(client, world):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
    messages = [
        {"role": "developer", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    assert chat(client, messages=messages, tools=TOOLS).status_code == 200
    (shown,) = world.model.encoded
    assert [message["role"] for message in shown] == ["system", "user", "assistant", "tool"]
    assert shown[1]["content"] == "ab"
    assert shown[2]["tool_calls"][0]["function"]["arguments"] == {"city": "Bonn"}
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    assert world.model.tools == [[tool]]


def test_a_stop_in_the_first_token_leaves_empty_lists(client, world):
    world.inference.script = []
    choice = complete(client, logprobs=1, stop="Z").get_json()["choices"][0]
    assert choice["logprobs"] == {"text_offset": [], "tokens": [], "token_logprobs": [], "top_logprobs": []}


def test_a_call_comes_back_as_a_tool_call(client, world):
    world.inference.script = ["I look.\n", CALL]
    choice = chat(client, tools=TOOLS).get_json()["choices"][0]
    (call,) = choice["message"]["tool_calls"]
    assert choice["finish_reason"] == "tool_calls" and choice["message"]["content"] == "I look."
    assert json.loads(call["function"]["arguments"]) == {"city": "Bonn"}
    assert call["type"] == "function" and call["id"].startswith("call_")


def joined_calls(deltas):
    """The calls of a stream, put together as OpenAI's clients do it."""
    calls = []
    for part in (part for delta in deltas for part in delta.get("tool_calls", [])):
        if "id" in part:
            assert part["index"] == len(calls) and part["function"]["arguments"] == ""
            calls.append({"id": part["id"], "type": part["type"], "function": dict(part["function"])})
        else:
            calls[part["index"]]["function"]["arguments"] += part["function"]["arguments"]
    return calls


def test_a_streamed_call_brings_its_name_and_then_its_arguments_in_pieces(client, world):
    world.inference.script = ["Hm <", "b> ", CALL[:20], CALL[20:50], CALL[50:]]
    chunks = [event["choices"][0] for event in events_of(chat(client, tools=TOOLS, stream=True))[:-1]]
    assert "".join(chunk["delta"].get("content") or "" for chunk in chunks) == "Hm <b>"
    (call,) = joined_calls(chunk["delta"] for chunk in chunks)
    assert call["function"] == {"name": "weather", "arguments": '{"city": "Bonn"}'}
    assert sum("tool_calls" in chunk["delta"] for chunk in chunks) >= 2
    assert chunks[-1]["finish_reason"] == "tool_calls"


def test_a_call_that_was_cut_off_says_length(client, world):
    world.inference.script, world.inference.finish_reason = [CALL[:-20]], "length"
    choice = chat(client, tools=TOOLS).get_json()["choices"][0]
    assert choice["finish_reason"] == "length" and choice["message"]["content"] is None
    assert choice["message"]["tool_calls"][0]["function"]["name"] == "weather"


@pytest.mark.parametrize("is_streamed", [False, True])
def test_reasoning_comes_apart_from_the_content(client, world, is_streamed):
    world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = ["Let me ", "think.\n</th", "ink>\n\n", "Yes.", CALL]
    body = {"tools": TOOLS, "stream": is_streamed}
    if is_streamed:
        deltas = [event["choices"][0]["delta"] for event in events_of(chat(client, **body))[:-1]]
        said = {key: "".join(one.get(key) or "" for one in deltas) for key in ("reasoning_content", "content")}
        said["tool_calls"] = joined_calls(deltas)
    else:
        said = chat(client, **body).get_json()["choices"][0]["message"]
    assert (said["reasoning_content"], said["content"]) == ("Let me think.", "Yes.")
    assert said["tool_calls"][0]["function"]["name"] == "weather"


def test_a_call_with_half_a_surrogate_pair_is_answered_whole_and_streamed(client, world):
    world.inference.script = ['<tool_call>{"name": "weather", "arguments": {"city": "x\\ud83d"}}</tool_call>']
    [whole] = chat(client, tools=TOOLS).get_json()["choices"][0]["message"]["tool_calls"]
    deltas = [event["choices"][0]["delta"] for event in events_of(chat(client, tools=TOOLS, stream=True))[:-1]]
    [streamed] = joined_calls(deltas)
    assert whole["function"] == streamed["function"] == {"name": "weather", "arguments": '{"city": "x\\ud83d"}'}


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        (r'{"city": "x\ud83d"}', {"city": "x\ufffd"}),
        (r'{"\uDE00 \ud83d\ud83d\ude00\n": 1}', {"\ufffd \ufffd\U0001f600\n": 1}),
        (r'{"path": "C:\\ud83d"}', {"path": "C:\\ud83d"}),
        (r'{"city": "\ud83dx\u00e9"}', {"city": "\ufffdx\u00e9"}),
        ('{"a": ' * 60 + "NaN" + "}" * 60, None),
        ('{"a": 1, "a": 1e999, "b": 12345678901234567.89}', None),
    ],
)
def test_a_call_as_it_was_answered_may_come_back(client, world, arguments, shown):
    world.inference.script = [f'<tool_call>{{"name": "weather", "arguments": {arguments}}}</tool_call>']
    message = chat(client, tools=TOOLS).get_json()["choices"][0]["message"]
    [call] = message["tool_calls"]
    answered = [*MESSAGES, message, {"role": "tool", "tool_call_id": call["id"], "content": "rain"}]
    assert chat(client, messages=answered, tools=TOOLS).status_code == 200
    [seen] = world.model.encoded[-1][-2]["tool_calls"]
    assert shown is None or seen["function"]["arguments"] == shown


def test_what_openais_sdk_adds_to_an_answer_may_come_back_with_it(client, world):
    function = {"name": "weather", "arguments": '{"city": "Bonn"}', "parsed_arguments": {"city": "Bonn"}}
    call = {"id": "c1", "type": "function", "index": 0, "function": function}
    message = {"role": "assistant", "content": None, "parsed": {"a": None}, "tool_calls": [call]}
    answered = [*MESSAGES, message, {"role": "tool", "tool_call_id": "c1", "content": "rain"}]
    assert chat(client, messages=answered, tools=TOOLS).status_code == 200
    assert set(world.model.encoded[0][1]["tool_calls"][0]["function"]) == {"name", "arguments"}


def test_without_tools_a_call_is_text(client, world):
    world.inference.script = [CALL]
    assert chat(client).get_json()["choices"][0]["message"]["content"] == CALL
    assert chat(client, tools=TOOLS, tool_choice="none").get_json()["choices"][0]["message"]["content"] == CALL
    assert world.model.tools == [None, None]


def test_a_template_without_tools_refuses_them(client, world):
    world.model.has_tool_template = False
    assert_envelope(chat(client, tools=TOOLS), 400, "unsupported_parameter", "tools")
    answered = [*MESSAGES, {"role": "tool", "tool_call_id": "c", "content": "x"}]
    assert_envelope(chat(client, messages=answered), 400, "unsupported_parameter", "messages")
    assert chat(client).status_code == 200


@pytest.mark.parametrize("arguments", ["{", "[]", "5", "[" * 5000, '{"a": ' * 200 + "1" + "}" * 200])
def test_arguments_that_are_no_json_object_are_refused(client, arguments):
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    messages = [*MESSAGES, {"role": "assistant", "tool_calls": [call]}]
    assert_envelope(chat(client, messages=messages), 400, "invalid_parameter", "messages")


def test_a_schema_that_is_nested_too_deeply_is_refused(client):
    schema = {}
    for _ in range(60):
        schema = {"not": schema}
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
    assert_envelope(complete(client, response_format=wanted), 400, "invalid_parameter", "response_format")


def test_arguments_of_the_template_reach_it_where_it_knows_them(client, world):
    assert chat(client, chat_template_kwargs={"enable_thinking": False}).status_code == 200
    assert world.model.arguments[-1] == {"enable_thinking": False}
    assert_envelope(
        chat(client, chat_template_kwargs={"thinking": True}), 400, "unsupported_parameter", "chat_template_kwargs"
    )
    refused = chat(client, chat_template_kwargs={"chat_template": "{{ 1 }}"})
    assert refused.status_code == 400 and "chat_template" in refused.get_json()["error"]["message"]


MADE = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize("name", ["thinking_token_budget", "thinking_budget"])
def test_a_budget_of_reasoning_is_what_the_engine_and_the_template_are_told(client, world, name):
    world.model.forms.reasoning = THINK
    world.model.template_names = ("thinking_budget",)
    assert chat(client, **{name: 7}).status_code == 200
    limit = world.inference.jobs[-1].params.reasoning_limit
    assert (limit.num_tokens, limit.closing) == (7, tuple(map(ord, "</think>")))
    assert world.model.arguments[-1] == {"thinking_budget": 7}
    world.model.forms.reasoning = None
    assert chat(client, **{name: 7}).status_code == 200
    assert world.inference.jobs[-1].params.reasoning_limit is None
    assert_envelope(chat(client, **{name: -1}), 400, "invalid_parameter", name)


def test_two_budgets_that_differ_are_refused(client):
    fields = {"thinking_budget": 7, "thinking_token_budget": 8}
    assert_envelope(chat(client, **fields), 400, "invalid_parameter", "thinking_budget")


def test_an_answer_behind_reasoning_follows_its_format_and_both_come_apart(client, world):
    world.model.forms.reasoning, world.model.forms.is_thinking = THINK, True
    world.inference.script = ['Hm.</think>\n{"a": 1}']
    answer = chat(client, response_format={"type": "json_object"}).get_json()
    message = answer["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("Hm.", '{"a": 1}')
    assert answer["usage"]["completion_tokens_details"] == {"reasoning_tokens": 0}


def test_an_answer_is_gone_on_with(client, world):
    messages = [
        {"role": "user", "content": "Count."},
        {"role": "assistant", "content": [{"type": "text", "text": "One"}]},
    ]
    answer = chat(client, messages=messages, continue_final_message=True)
    assert answer.get_json()["choices"][0]["message"]["content"] == "Hello,\nworld"
    assert world.model.arguments[-1] == {"add_generation_prompt": False, "continue_final_message": True}
    assert chat(client, messages=messages, add_generation_prompt=False).status_code == 200
    assert world.model.arguments[-1] == {"add_generation_prompt": False}
    assert chat(client, add_generation_prompt=True, continue_final_message=False).status_code == 200
    assert world.model.arguments[-1] == {}


@pytest.mark.parametrize(
    "fields",
    [
        {"add_generation_prompt": True, "messages": [{"role": "assistant", "content": "a"}]},
        {"messages": [{"role": "user", "content": "a"}]},
        {"messages": [{"role": "assistant", "content": ""}]},
        {"messages": [{"role": "assistant", "content": "a", "tool_calls": [MADE]}]},
    ],
)
def test_what_is_no_start_of_an_answer_is_not_gone_on_with(client, fields):
    response = chat(client, continue_final_message=True, **fields)
    assert_envelope(response, 400, "invalid_parameter", "continue_final_message")


def test_reasoning_effort_reaches_templates_that_know_it_and_is_a_hint_to_others(client, world):
    assert chat(client, reasoning_effort="low").status_code == 200
    assert world.model.arguments[-1] == {"reasoning_effort": "low"}
    assert chat(client, reasoning_effort="none").status_code == 200
    assert world.model.arguments[-1] == {"reasoning_effort": "none", "enable_thinking": False}
    world.model.template_names = ()
    assert chat(client, reasoning_effort="low").status_code == 200
    assert world.model.arguments[-1] == {}


def tool(name="weather", **fields):
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, **fields}}


def rules_sent(world):
    constraint = world.inference.jobs[-1].params.grammar.constraint
    assert constraint.kind == "tool_calls"
    return json.loads(constraint.source)


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("fields", "is_required", "is_parallel", "names"),
    [
        ({"tool_choice": "required"}, True, True, ["weather", "other"]),
        ({"tool_choice": NAMED}, True, False, ["weather"]),
        ({"parallel_tool_calls": False}, False, False, ["weather", "other"]),
        ({"tool_choice": "required", "parallel_tool_calls": False}, True, False, ["weather", "other"]),
    ],
)
def test_calls_are_held_to_what_the_request_asks_for(client, world, fields, is_required, is_parallel, names):
    assert chat(client, tools=[tool(), tool("other")], **fields).status_code == 200
    rules = rules_sent(world)
    assert (rules["is_required"], rules["is_parallel"]) == (is_required, is_parallel)
    assert list(rules["schemas"]) == names


def test_a_strict_function_is_held_to_its_schema_and_another_to_any_object(client, world):
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tools = [tool(strict=True, parameters=schema), tool("other", parameters=schema, strict=False)]
    assert chat(client, tools=tools).status_code == 200
    assert rules_sent(world)["schemas"] == {"weather": schema, "other": {"type": "object"}}
    assert world.model.tools[-1][0]["function"] == {"name": "weather", "parameters": schema}


def test_calls_that_nothing_is_asked_of_have_no_grammar(client, world):
    assert chat(client, tools=TOOLS, parallel_tool_calls=True, tool_choice="auto").status_code == 200
    assert chat(client, tools=[tool(strict=True)], tool_choice="none").status_code == 200
    assert [job.params.grammar for job in world.inference.jobs] == [None, None]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tool_choice": NAMED, "tools": [tool("other")]}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice"),
        ({"tool_choice": "required", "tools": [tool()], "ignore_eos": True}, "ignore_eos"),
        ({"tool_choice": "required", "tools": [tool()], "min_tokens": 2}, "min_tokens"),
        ({"tools": [tool(strict=True, parameters={"impossible": 1})]}, "tools"),
    ],
)
def test_calls_that_cannot_be_held_are_refused_by_name(client, fields, param):
    assert_envelope(chat(client, **fields), 400, "invalid_parameter", param)
