"""``/complete`` and ``/chat``: shapes, defaults, and what reaches the engine."""

from __future__ import annotations

import re

import pytest

from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope

TIMINGS = {"queue_ms", "ttft_ms", "total_ms"}


def test_complete_answers_every_field_of_the_contract(client):
    response = client.post("/complete", json={"prompt": "abc"})
    body = response.get_json()
    assert response.status_code == 200
    assert set(body) == {"completion", "finish_reason", "usage", "timings", "model", "request_id"}
    assert body["completion"] == "Hello,\nworld"
    assert body["finish_reason"] == "stop"
    assert body["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 0},
    }
    assert set(body["timings"]) == TIMINGS
    assert body["model"] == "scripted"


def test_every_generation_answer_tells_id_timings_and_worker_in_headers(client):
    response = client.post("/complete", json={"prompt": "abc"}, headers={"X-Request-Id": "mine-1"})
    assert response.headers["X-Request-Id"] == response.get_json()["request_id"] == "mine-1"
    assert response.headers["X-Worker"] == "0"
    assert all(float(response.headers[name]) >= 0 for name in ("X-Queue-Ms", "X-Ttft-Ms", "X-Total-Ms"))


def test_data_is_another_name_for_prompt(client, world):
    assert client.post("/complete", json={"data": "abc"}).status_code == 200
    assert world.model.encoded == ["abc"]


def test_echo_puts_the_prompt_in_front(client):
    assert client.post("/complete", json={"prompt": "abc", "echo": True}).get_json()["completion"].startswith("abcH")


@pytest.mark.parametrize("recordid", ["77492467", 77492467, ""])
def test_a_recordid_comes_back_as_it_was_sent(client, recordid):
    assert client.post("/complete", json={"prompt": "a", "recordid": recordid}).get_json()["recordid"] == recordid
    assert client.post("/chat", json={"prompt": "a", "recordid": recordid}).get_json()["recordid"] == recordid


def test_the_model_can_be_named(client):
    assert client.post("/complete", json={"prompt": "a", "model": "scripted"}).status_code == 200
    assert_envelope(client.post("/complete", json={"prompt": "a", "model": "other"}), 404, "model_not_found", "model")


def test_silent_fields_take_the_models_defaults_each_by_itself(client, world):
    world.use_defaults(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.1)
    client.post("/complete", json={"prompt": "a"})
    client.post("/complete", json={"prompt": "a", "temperature": 1, "top_k": 0, "stop": None})
    silent, given = (job.params for job in world.inference.jobs)
    assert (silent.temperature, silent.top_p, silent.top_k, silent.repetition_penalty) == (0.7, 0.8, 20, 1.1)
    assert (given.temperature, given.top_p, given.top_k, given.repetition_penalty) == (1.0, 0.8, 0, 1.1)
    assert isinstance(given.temperature, float)


def test_every_sampling_field_reaches_the_engine(client, world):
    fields = {"temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1, "repetition_penalty": 1.2, "seed": 7}
    texts = {"stop": "END", "truncate_before_pattern": ["\n\n^#", "^'''"], "ignore_eos": True}
    assert client.post("/complete", json={"prompt": "a", "max_new_tokens": 9, **fields, **texts}).status_code == 200
    params = world.inference.jobs[0].params
    assert params.max_new_tokens == 9
    assert {name: getattr(params, name) for name in fields} == fields
    assert (params.stop, params.truncate_before_pattern, params.ignore_eos) == (("END",), ("\n\n^#", "^'''"), True)


def test_the_default_length_shrinks_to_what_fits(client, world):
    client.post("/complete", json={"prompt": "a" * 60})
    client.post("/complete", json={"prompt": "a" * 63})
    assert [job.params.max_new_tokens for job in world.inference.jobs] == [4, 1]


@pytest.mark.parametrize("wanted", [5, 513, 10**200])
def test_an_explicit_length_is_an_upper_bound_lowered_to_what_fits(client, world, wanted):
    assert client.post("/complete", json={"prompt": "a" * 60, "max_new_tokens": wanted}).status_code == 200
    assert world.inference.jobs[0].params.max_new_tokens == 4


@pytest.mark.parametrize("name", ["prompt", "data"])
def test_a_prompt_that_fills_the_context_is_refused_under_its_own_name(client, name):
    assert_envelope(client.post("/complete", json={name: "a" * 64}), 400, "context_length_exceeded", name)


def test_an_explicit_length_is_lowered_to_the_servers_bound(make_world):
    world = make_world(max_new_tokens=20, default_new_tokens=10)
    assert client_of(world).post("/complete", json={"prompt": "a", "max_new_tokens": 30}).status_code == 200
    assert world.inference.jobs[0].params.max_new_tokens == 20


def test_an_empty_prompt_is_refused_unless_it_encodes_to_a_token(client, world, monkeypatch):
    assert_envelope(client.post("/complete", json={"prompt": ""}), 400, "invalid_parameter", "prompt")
    monkeypatch.setattr(world.model, "encode", lambda text: [1])
    assert client.post("/complete", json={"prompt": ""}).status_code == 200


def test_text_with_nul_and_unicode_line_separators_passes_unharmed(client, world):
    world.inference.script = ["\u2028 \x00 \u00e9 \U0001f600"]
    body = client.post("/complete", json={"prompt": "\x00\u2028", "echo": True}).get_json()
    assert body["completion"] == "\x00\u2028\u2028 \x00 \u00e9 \U0001f600"


def test_chat_answers_with_the_new_history_and_the_time(client, world):
    body = client.post("/chat", json={"prompt": "q2", "history": [["q1", "a1"]]}).get_json()
    assert body["response"] == "Hello,\nworld"
    assert body["history"] == [["q1", "a1"], ["q2", "Hello,\nworld"]]
    assert body["status"] == 200
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", body["time"])
    assert set(body["timings"]) == TIMINGS and body["finish_reason"] == "stop" and body["model"] == "scripted"
    roles = [message["role"] for message in world.model.encoded[0]]
    assert roles == ["user", "assistant", "user"]


def test_chat_takes_messages(client, world):
    messages = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
    ]
    body = client.post("/chat", json={"messages": messages}).get_json()
    assert world.model.encoded == [messages]
    assert body["history"] == [["q1", "a1"], ["q2", "Hello,\nworld"]]


def test_the_system_message_is_the_callers_or_else_the_servers(make_world):
    world = make_world(system_prompt="server")
    client = client_of(world)
    own = [{"role": "system", "content": "own"}, {"role": "user", "content": "q"}]
    for body in ({"prompt": "q"}, {"prompt": "q", "system": "own"}, {"prompt": "q", "system": ""}, {"messages": own}):
        assert client.post("/chat", json=body).status_code == 200
    firsts = [messages[0] for messages in world.model.encoded]
    assert [message["content"] for message in firsts] == ["server", "own", "q", "own"]


def test_max_length_counts_the_prompt(client, world):
    assert client.post("/chat", json={"prompt": "abc", "max_length": 10}).status_code == 200
    assert world.inference.jobs[0].params.max_new_tokens == 7


def test_max_length_is_bounded_by_the_servers_new_tokens(make_world):
    world = make_world(max_new_tokens=20, default_new_tokens=10)
    assert client_of(world).post("/chat", json={"prompt": "abc", "max_length": 64}).status_code == 200
    assert world.inference.jobs[0].params.max_new_tokens == 20


@pytest.mark.parametrize("max_length", [65, 2048])
def test_max_length_is_lowered_to_the_context(client, world, max_length):
    assert client.post("/chat", json={"prompt": "abc", "max_length": max_length}).status_code == 200
    assert world.inference.jobs[0].params.max_new_tokens == 61


def test_a_max_length_without_room_for_one_token_is_refused(client):
    response = client.post("/chat", json={"prompt": "abc", "max_length": 3})
    assert_envelope(response, 400, "context_length_exceeded", "max_length")


def test_the_chatglm_form_of_the_field_report_works(make_world):
    world = make_world()
    world.model.context_tokens = 4096
    send = {"prompt": "hi", "history": [], "max_length": 2048, "top_p": 0.7, "temperature": 0.95}
    assert client_of(world).post("/chat", json=send).status_code == 200


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": "a", "name": "b"}]}, "messages"),
        ({"messages": [{"role": "assistant", "content": "a"}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": "a"}, {"role": "system", "content": "a"}]},
            "messages",
        ),
        ({"messages": [{"role": "user", "content": "a"}], "history": []}, "history"),
        ({"messages": [{"role": "user", "content": "a"}], "system": "s"}, "system"),
        ({"prompt": "a", "history": [["q"]]}, "history"),
        ({"prompt": "a", "history": [["q", "a", "b"]]}, "history"),
        ({"prompt": "a", "history": [["q", 1]]}, "history"),
        ({"prompt": "a", "max_length": 9, "max_new_tokens": 3}, "max_length"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": 5}, "prompt"),
    ],
)
def test_a_malformed_conversation_is_refused_by_name(client, body, param):
    response = client.post("/chat", json=body)
    assert response.status_code == 400
    assert response.get_json()["error"]["param"] == param
    assert client.post("/chat", json={"prompt": "a"}).status_code == 200


def test_a_model_that_cannot_chat_says_so(client, world):
    world.model.has_chat_template = False
    assert_envelope(client.post("/chat", json={"prompt": "a"}), 400, "unsupported_parameter", "messages")
    assert client.post("/complete", json={"prompt": "a"}).status_code == 200
