"""What SDKs send that asks for nothing, what they are told, and what reaches the template."""

from __future__ import annotations

import json

import pytest

from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope, events_of

CHAT = "/v1/chat/completions"
HI = {"role": "user", "content": "hi"}
# `model_dump()` of the SDK's message, sent back as it is.
DUMPED = {
    "content": None,
    "refusal": None,
    "role": "assistant",
    "annotations": None,
    "audio": None,
    "function_call": None,
    "tool_calls": [{"id": "call_1", "function": {"arguments": '{"a": null}', "name": "f"}, "type": "function"}],
}
ANSWERED = [HI, DUMPED, {"role": "tool", "tool_call_id": "call_1", "content": "1"}]
BODIES = {
    "/complete": {"prompt": "a"},
    "/chat": {"messages": [{**HI, "name": None}]},
    "/infill": {"prefix": "a"},
    "/tokenize": {"text": "a", "add_special_tokens": None},
    "/detokenize": {"tokens": [97]},
    "/v1/completions": {"prompt": "a", "suffix": None},
    CHAT: {"messages": [{**HI, "name": None, "weight": None}]},
    "/": {"data": "a", "prompt": None},
}


@pytest.mark.parametrize("path", BODIES)
def test_null_means_left_out_also_for_unknown_fields(describing, path):
    nothing = {"no_such_field": None, "model": None, "temperature": None, "frequency_penalty": None}
    response = describing.post(path, json={**BODIES[path], **nothing})
    assert response.status_code == 200, response.get_json()


@pytest.fixture
def describing(make_world):
    from tests.contract.describing import RoomyModel

    return client_of(make_world(model=RoomyModel()))


def test_a_message_that_an_sdk_dumped_is_taken_and_its_nulls_mean_nothing(client, world):
    assert client.post(CHAT, json={"messages": ANSWERED}).status_code == 200
    _, called, answered = world.model.encoded[-1]
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": {"a": None}}}
    assert called == {"role": "assistant", "content": None, "tool_calls": [call]}
    assert answered == {"role": "tool", "content": "1", "tool_call_id": "call_1", "name": "f"}


def test_null_at_every_depth_of_our_own_objects_is_left_out(client):
    tool = {"type": "function", "strict": None, "function": {"name": "f", "strict": None, "note": None}}
    schema = {"name": "s", "schema": {"const": None}, "strict": None, "note": None}
    body = {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a", "cache_control": None}]}],
        "stream": True,
        "stream_options": {"include_usage": None, "note": None},
    }
    assert client.post(CHAT, json={**body, "tools": [tool]}).status_code == 200
    assert client.post(CHAT, json={**body, "response_format": {"type": "json_schema", "json_schema": schema}})


def test_nulls_that_belong_to_the_caller_are_kept(client, world):
    parameters = {"type": "object", "properties": {"a": {"default": None, "enum": [None, 1]}}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    body = {"messages": [HI], "tools": tools, "metadata": {"a": None}}
    assert client.post(CHAT, json=body).status_code == 200
    assert world.model.tools[-1][0]["function"]["parameters"] == parameters
    schema = {"name": "s", "schema": {"const": None}}
    body = {"messages": [HI], "response_format": {"type": "json_schema", "json_schema": schema}}
    assert client.post(CHAT, json=body).status_code == 200
    assert json.loads(world.inference.jobs[-1].params.grammar.constraint.source) == {"const": None}


def test_names_reach_the_template(client, world):
    messages = [
        {**HI, "name": "ann"},
        {"role": "assistant", "content": "x", "name": "bot"},
        {"role": "tool", "tool_call_id": "c", "content": "1", "name": "g"},
    ]
    assert client.post(CHAT, json={"messages": messages}).status_code == 200
    assert [message.get("name") for message in world.model.encoded[-1]] == ["ann", "bot", "g"]


def test_what_a_model_thought_reaches_the_template_and_marks_for_caches_mean_nothing(client, world):
    thought = {"role": "assistant", "content": "x", "reasoning_content": "because"}
    marked = {"role": "user", "content": [{"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}]}
    assert client.post(CHAT, json={"messages": [HI, thought, marked]}).status_code == 200
    assert world.model.encoded[-1][1:] == [thought, {"role": "user", "content": "a"}]


def test_an_assistant_that_said_nothing_is_an_empty_text(client, world):
    messages = [HI, {"role": "assistant", "content": None}, {"role": "assistant", "content": None, "refusal": "no"}]
    assert client.post(CHAT, json={"messages": [*messages, HI]}).status_code == 200
    assert [message["content"] for message in world.model.encoded[-1]] == ["hi", "", "no", "hi"]


HINTS = {
    "reasoning_effort": "low",
    "verbosity": "low",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
    "metadata": {"a": "b"},
    "store": False,
    "service_tier": "flex",
    "user": "u",
    "modalities": ["text"],
    "prediction": {"type": "content", "content": "x"},
    "parallel_tool_calls": True,
    "seed": -1,
    "top_k": -1,
    "logit_bias": {"97": -100},
    "stop": [f"s{number}" for number in range(64)],
}


@pytest.mark.parametrize("name", HINTS)
def test_openais_hints_are_taken(client, name):
    assert client.post(CHAT, json={"messages": [HI], name: HINTS[name]}).status_code == 200


@pytest.mark.parametrize("name", ["user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "stop"])
def test_hints_are_taken_for_completions_too(client, name):
    assert client.post("/v1/completions", json={"prompt": "a", name: HINTS[name]}).status_code == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("store", True),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "a"}),
        ("web_search_options", {}),
        ("functions", []),
        ("stop", ["a"] * 65),
    ],
)
def test_what_changes_the_answer_and_is_not_followed_is_refused_by_name(client, name, value):
    response = client.post(CHAT, json={"messages": [HI], name: value})
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == name


@pytest.mark.parametrize("path", ["/v1/completions", CHAT])
def test_continuous_usage_is_told_with_every_chunk(client, path):
    options = {"continuous_usage_stats": True, "include_usage": True}
    body = {"stream": True, "stream_options": options, "messages": [HI], "prompt": "hi"}
    body.pop("prompt" if path == CHAT else "messages")
    *chunks, last, _done = events_of(client.post(path, json=body))
    counts = [chunk["usage"]["completion_tokens"] for chunk in chunks]
    assert counts == sorted(counts) and counts[-1] == 3
    assert (last["choices"], last["usage"]["prompt_tokens"]) == ([], 2)


def test_an_empty_suffix_is_a_completion(client, world, monkeypatch):
    monkeypatch.setattr(world.model, "has_infill", False)
    response = client.post("/v1/completions", json={"prompt": "ab", "suffix": ""})
    assert response.status_code == 200
    assert world.inference.jobs[0].prompt_ids == [97, 98]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/embeddings", {"input": ["a"] * 2049}, "input: List should have at most 2048 items, not 2049"),
        ("/v1/embeddings", {"input": ""}, "input: String should have at least 1 character"),
        ("/v1/embeddings", {"input": ["a", ""]}, "input.1: String should have at least 1 character"),
        ("/v1/completions", {"prompt": [[]]}, "prompt.0: List should have at least 1 item, not 0"),
        ("/v1/completions", {"prompt": 5}, "prompt: should be a string or a list"),
        ("/v1/completions", {"prompt": ["a", 1]}, "prompt.1: should be a string"),
        ("/v1/completions", {"prompt": [[1], [2, "x"]]}, "prompt.1.1: should be an integer"),
        ("/v1/completions", {}, "prompt: is missing"),
        ("/v1/completions", {"prompt": None}, "prompt: is missing"),
        ("/detokenize", {"tokens": None}, "tokens: is missing"),
        (CHAT, {"messages": [{"role": "user", "content": None}]}, "messages.0.content: is missing"),
        ("/v1/completions", {"prompt": "a", "stop": 5}, "stop: should be a string or a list"),
        ("/complete", {"prompt": "a", "stop": [5]}, "stop.0: should be a string"),
        ("/complete", {"prompt": "a", "logit_bias": {"1": 1, "01": 2}}, "logit_bias.01: String should match pattern"),
        ("/v1/completions", {"prompt": "a", "stop": ["x", 1]}, "stop.1: should be a string"),
        ("/complete", {"prompt": "a", "logprobs": "x"}, "logprobs: should be true or false or an integer"),
        ("/complete", {"prompt": "a", "recordid": "x" * 257}, "recordid: String should have at most 256 characters"),
        (CHAT, {"messages": [{"role": "user", "content": 5}]}, "messages.0.content: should be a string or a list"),
        (CHAT, {"messages": [{"role": "robot", "content": "a"}]}, "messages.0.role: should be one of"),
        (CHAT, {"messages": [{"content": "a"}]}, "messages.0.role: is missing"),
        (CHAT, {"messages": [{"role": "user"}]}, "messages.0.content: is missing"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text: is missing",
        ),
        (
            CHAT,
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages: parts of the type 'image_url' are not understood, only text",
        ),
        (CHAT, {"messages": [HI], "response_format": {"type": "xml"}}, "response_format.type: should be one of"),
        (
            CHAT,
            {"messages": [HI], "response_format": {"type": "json_schema", "json_schema": {"name": "n"}}},
            "response_format.json_schema.schema: is missing",
        ),
    ],
)
def test_the_true_reason_is_told_without_names_of_our_types(client, path, body, message):
    error = client.post(path, json=body).get_json()["error"]
    assert error["message"].startswith(message)
    assert error["param"] == message.split(":")[0].split(".")[0]
    assert not any(mark in error["message"] for mark in ("constrained", "list[", "function-", "Body", "Part", "Input"))


@pytest.mark.parametrize("field", ["prompt", "messages", "stop", "logit_bias"])
def test_a_body_full_of_mistakes_is_refused_for_one_of_them(client, field):
    value = {str(number): "x" for number in range(60_000)} if field == "logit_bias" else [None] * 60_000
    path = CHAT if field == "messages" else "/v1/completions"
    body = {} if field in ("prompt", "messages") else {"prompt": "a"}
    response = client.post(path, json={**body, field: value})
    assert_envelope(response, 400, "invalid_parameter", field)


@pytest.mark.parametrize(
    ("path", "body", "sent", "meant"),
    [
        ("/complete", {"prompt": "a"}, "max_tokens", "max_new_tokens"),
        ("/chat", {"prompt": "a"}, "max_completion_tokens", "max_new_tokens"),
        ("/v1/completions", {"prompt": "a"}, "max_new_tokens", "max_tokens"),
        (CHAT, {"messages": [HI]}, "functions", "tools"),
        (CHAT, {"messages": [HI]}, "temprature", "temperature"),
        ("/infill", {"prefix": "a"}, "sufix", "suffix"),
        ("/tokenize", {"text": "a"}, "add_special", "add_special_tokens"),
        ("/v1/embeddings", {"input": "a"}, "encodingformat", "encoding_format"),
        ("/fill-mask", {"text": "a"}, "topk", "top_k"),
    ],
)
def test_an_unknown_field_is_named_with_the_one_that_was_meant(client, path, body, sent, meant):
    error = assert_envelope(client.post(path, json={**body, sent: 1}), 400, "unsupported_parameter", sent)
    assert error["message"] == f"unknown parameter {sent!r}; did you mean {meant}?"


def test_an_unknown_field_below_is_named_with_its_path(client):
    body = {"messages": [HI, {**HI, "contents": "x"}]}
    error = assert_envelope(client.post(CHAT, json=body), 400, "unsupported_parameter", "messages")
    assert error["message"] == "unknown parameter 'messages.1.contents'; did you mean content?"


def test_an_unknown_model_is_told_which_there_are(client):
    unknown = client.post("/complete", json={"prompt": "a", "model": "gpt-4"})
    error = assert_envelope(unknown, 404, "model_not_found", "model")
    assert error["message"] == "there is no model 'gpt-4'; this server has 'scripted' (GET /v1/models)"


def test_bounds_name_the_setting_that_makes_them(client, make_world):
    error = client.post("/complete", json={"prompt": "a" * 64}).get_json()["error"]
    assert "FORKLIFT_MAX_CONTEXT_TOKENS" in error["message"]
    small = client_of(make_world(max_body_bytes=20))
    error = small.post("/complete", json={"prompt": "a" * 64}).get_json()["error"]
    assert "FORKLIFT_MAX_BODY_BYTES" in error["message"]


def test_unknown_fields_may_be_left_out_and_are_named(make_world, capsys):
    client = client_of(make_world(unknown_fields="warn"))
    body = {"messages": [{**HI, "weight": 1}], "foo": 1, "a b\r\nX-Evil: 1": 2, "temperature": 0}
    response = client.post(CHAT, json=body)
    assert response.status_code == 200
    names = response.headers["X-Ignored-Fields"].split(", ")
    assert sorted(names) == ["a%20b%0D%0AX-Evil%3A%201", "foo", "weight"]
    assert "ignored_fields" in capsys.readouterr().out
    assert_envelope(client.post(CHAT, json={**body, "temperature": -1}), 400, "invalid_parameter", "temperature")
    assert "X-Ignored-Fields" not in client.post("/complete", json={"prompt": "a"}).headers
    root = client.post("/", json={"data": "a", "foo": 1})
    assert (root.status_code, root.headers["X-Ignored-Fields"]) == (200, "foo")


def test_the_names_of_ignored_fields_are_no_longer_than_proxies_take(make_world):
    client = client_of(make_world(unknown_fields="warn"))
    response = client.post("/complete", json={"prompt": "a", **{f"{number}" + "é" * 80: 1 for number in range(40)}})
    names = response.headers["X-Ignored-Fields"]
    assert response.status_code == 200
    assert "0%C3%A9" in names and len(names) <= 1024
