"""Several completions, log-probabilities and constraints on the native routes."""

from __future__ import annotations

import pytest

from app.core.errors import RequestTimeoutError, ShuttingDownError
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate
from tests.contract.reading import DONE, assert_envelope, events_of
from tests.waiting import wait_until

ROUTES = [("/complete", "completion"), ("/chat", "response")]


@pytest.mark.parametrize(("path", "key"), ROUTES)
def test_several_completions_stand_in_choices_and_the_first_where_one_would(client, world, path, key):
    world.inference.scripts = {0: ["one"], 1: ["two"], 2: ["three"]}
    body = client.post(path, json={"prompt": "abc", "n": 3, "seed": 5}).get_json()
    assert body[key] == "one"
    assert [choice[key] for choice in body["choices"]] == ["one", "two", "three"]
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert {choice["finish_reason"] for choice in body["choices"]} == {"stop"}
    assert body["usage"]["prompt_tokens"] == 3 and body["usage"]["completion_tokens"] == 3
    assert [job.params.seed for job in world.inference.jobs] == [5, 6, 7]


@pytest.mark.parametrize(("path", "key"), ROUTES)
def test_a_stream_of_several_completions_tells_them_apart(client, world, path, key):
    world.inference.scripts = {0: ["one"], 1: ["two"]}
    *pieces, last, done = events_of(client.post(path, json={"prompt": "abc", "n": 2, "stream": True}))
    texts = {index: "".join(piece[key] for piece in pieces if piece["index"] == index) for index in (0, 1)}
    assert texts == {0: "one", 1: "two"}
    assert [piece["index"] for piece in pieces if "finish_reason" in piece] == [0, 1]
    assert "index" not in last and last["finish_reason"] == "stop" and done == DONE


def test_echo_comes_before_each_of_several_completions(client):
    body = {"prompt": "abc", "n": 2, "echo": True, "stream": True}
    *pieces, _, _ = events_of(client.post("/complete", json=body))
    assert [piece for piece in pieces if piece["completion"] == "abc"] == [
        {"index": 0, "completion": "abc"},
        {"index": 1, "completion": "abc"},
    ]


def test_a_request_takes_a_place_for_each_completion(client, world):
    gate = Gate()
    world.inference.script = ["a", gate]
    response = client.post("/complete", json={"prompt": "abc", "n": 4, "stream": True})
    assert world.num_places() == 4
    gate.set()
    assert events_of(response)[-1] == DONE
    assert len(world.inference.jobs) == 4


def test_more_sequences_than_places_are_a_fault_of_the_request(client):
    response = client.post("/complete", json={"prompt": "abc", "n": 12})
    error = assert_envelope(response, 400, "invalid_parameter", "n")
    assert "FORKLIFT_MAX_QUEUE" in error["message"] and "FORKLIFT_MAX_BATCH_SIZE" in error["message"]
    body = {"prompt": ["a"] * 6, "n": 2, "max_tokens": 1}
    assert_envelope(client.post("/v1/completions", json=body), 400, "invalid_parameter", "n")
    body = {"prompt": ["a"] * 12, "max_tokens": 1}
    assert_envelope(client.post("/v1/completions", json=body), 400, "invalid_parameter", "prompt")


def test_an_answer_holds_a_bounded_number_of_log_probabilities(client, world):
    world.model.context_tokens = 40_000
    body = {"prompt": ["a" * 30_000] * 5, "echo": True, "logprobs": 5, "max_tokens": 1}
    assert_envelope(client.post("/v1/completions", json=body), 400, "invalid_parameter", "logprobs")
    assert world.inference.jobs == []


def test_prefixes_are_shared_within_a_salt(client, world):
    for salt in (None, None, "a", "a", "b"):
        client.post("/complete", json={"prompt": "abc", "cache_salt": salt})
    owners = [job.owner for job in world.inference.jobs]
    assert owners[0] == owners[1] != owners[2] == owners[3] != owners[4]
    assert_envelope(
        client.post("/complete", json={"prompt": "a", "cache_salt": "x" * 257}), 400, "invalid_parameter", "cache_salt"
    )


def test_bare_text_holds_one_completion_only(client):
    body = {"prompt": "a", "n": 2, "stream": True}
    response = client.post("/complete", json=body, headers={"Accept": "text/plain"})
    assert_envelope(response, 400, "unsupported_parameter", "n")


@pytest.mark.parametrize(("path", "key"), ROUTES)
def test_logprobs_tell_each_token_and_the_best_ones(client, world, path, key):
    world.inference.script = ["a", "é"]
    body = client.post(path, json={"prompt": "abc", "logprobs": 2}).get_json()
    first, second = body["logprobs"]
    assert (first["id"], first["token"], first["logprob"], first["bytes"]) == (97, "a", -0.97, [97])
    assert [entry["token"] for entry in first["top_logprobs"]] == ["a", "b"]
    assert second["bytes"] == list("é".encode())
    assert world.inference.jobs[0].params.num_logprobs == 2


def test_without_logprobs_the_answer_has_none(client):
    for value in (False, None):
        assert "logprobs" not in client.post("/complete", json={"prompt": "a", "logprobs": value}).get_json()


def test_streamed_logprobs_come_with_their_text(client, world):
    world.inference.script = ["ab", Gate(), "c"]
    world.inference.script[1].set()
    *pieces, last, _ = events_of(client.post("/complete", json={"prompt": "abc", "logprobs": 0, "stream": True}))
    assert [entry["token"] for piece in pieces for entry in piece["logprobs"]] == ["a", "b", "c"]
    assert "logprobs" not in last


def test_every_new_field_reaches_the_engine(client, world):
    fields = {"typical_p": 0.9, "presence_penalty": 0.5, "frequency_penalty": -0.5, "min_new_tokens": 2}
    lists = {"logit_bias": {"5": -100, "7": 1.5}, "bad_words": ["no"], "stop_token_ids": [3, 4]}
    assert client.post("/complete", json={"prompt": "a", **fields, **lists}).status_code == 200
    params = world.inference.jobs[0].params
    assert {name: getattr(params, name) for name in fields} == fields
    assert params.logit_bias == ((5, -100.0), (7, 1.5))
    assert params.bad_words == ((110, 111), (32, 110, 111))
    assert params.stop_token_ids == {3, 4}


@pytest.mark.parametrize(
    ("fields", "kind", "source"),
    [
        ({"regex": "[a-z]+"}, "regex", "[a-z]+"),
        ({"response_format": {"type": "json_object"}}, "json_schema", '{"type": "object"}'),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "null"}}}},
            "json_schema",
            '{"type": "null"}',
        ),
    ],
)
def test_a_format_becomes_a_constraint(client, world, fields, kind, source):
    assert client.post("/complete", json={"prompt": "a", **fields}).status_code == 200
    constraint = world.inference.jobs[0].params.grammar.constraint
    assert (constraint.kind, constraint.source) == (kind, source)


def test_the_text_format_is_no_constraint(client, world):
    body = {"prompt": "a", "response_format": {"type": "text"}, "ignore_eos": True}
    assert client.post("/complete", json=body).status_code == 200
    assert world.inference.jobs[0].params.grammar is None


def test_a_stream_of_several_completions_that_is_left_stops_them_all(client, world):
    world.inference.script = ["a", Gate()]
    response = client.post("/complete", json={"prompt": "abc", "n": 3, "stream": True})
    next(response.iter_encoded())
    response.close()
    wait_until(lambda: len(world.inference.jobs) == 3 and all(job.has_ended for job in world.inference.jobs))
    wait_until(lambda: world.num_places() == 0)


@pytest.mark.parametrize("failing", [0, 2])
def test_one_completion_that_fails_fails_the_request(client, world, failing):
    world.inference.scripts = {failing: [RequestTimeoutError("late")]}
    assert_envelope(client.post("/complete", json={"prompt": "abc", "n": 3}), 504, "request_timeout")
    wait_until(lambda: all(job.has_ended for job in world.inference.jobs))
    assert world.num_places() == 0


def test_a_stream_in_which_one_completion_fails_ends_with_its_error(client, world):
    gate = Gate()
    world.inference.scripts = {1: ["b", gate, RequestTimeoutError("late")]}
    response = client.post("/complete", json={"prompt": "abc", "n": 2, "stream": True})
    gate.set()
    events = events_of(response)
    assert events[-1]["error"]["code"] == "request_timeout"


def test_completions_that_wait_for_their_siblings_do_not_time_out_in_the_queue(make_world):
    world = make_world(queue_timeout_s=0.1)
    world.inference.script = [0.08, "a"]
    response = client_of(world).post("/complete", json={"prompt": "abc", "n": 4})
    assert response.status_code == 200
    assert float(response.headers["X-Queue-Ms"]) < float(response.headers["X-Total-Ms"])


def test_where_the_engine_refuses_a_later_completion_the_earlier_ones_are_stopped(client, world, monkeypatch):
    world.inference.before_start = Gate()
    submit = world.inference.submit

    def refuse_second(job):
        if world.inference.jobs:
            raise ShuttingDownError("the server is shutting down", retry_after_s=1)
        submit(job)

    monkeypatch.setattr(world.inference, "submit", refuse_second)
    assert_envelope(client.post("/complete", json={"prompt": "abc", "n": 2}), 503, "shutting_down")
    (job,) = world.inference.jobs
    assert job.has_ended and world.num_places() == 0
