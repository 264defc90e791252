"""Request ids, and one log line per request."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from app.core.errors import RequestTimeoutError
from app.core.logs.logging import configure_logging
from tests.contract.conftest import client_of
from tests.contract.doubles import Gate

FIELDS = {
    "request_id",
    "recordid",
    "route",
    "model",
    "worker",
    "status",
    "queue_ms",
    "ttft_ms",
    "total_ms",
    "prompt_tokens",
    "completion_tokens",
    "finish_reason",
    "error",
}


def line_of(client, path="/complete", **options):
    """The answer, and the one log line that the request wrote."""
    with capture_logs() as lines:
        response = client.post(path, **options)
        response.get_data()
        response.close()
    (line,) = [line for line in lines if line["event"] == "request"]
    return response, line


HI = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 9}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "body"), [("/v1/messages", HI), ("/v1/responses", {"input": "hi"})])
def test_a_conversation_in_another_apis_form_writes_the_same_line(client, path, body, stream):
    _, line = line_of(client, path, json=body | {"stream": stream})
    assert set(line) == FIELDS | {"event", "log_level"}
    told = {name: line[name] for name in ("route", "model", "status", "prompt_tokens", "completion_tokens")}
    assert told == {"route": path, "model": "scripted", "status": 200, "prompt_tokens": 2, "completion_tokens": 3}
    assert (line["finish_reason"], line["error"]) == ("stop", None)


@pytest.mark.parametrize("stream", [False, True])
def test_one_line_tells_all_about_a_request(client, stream):
    body = {"prompt": "abc", "recordid": "r7", "stream": stream}
    _, line = line_of(client, json=body, headers={"X-Request-Id": "mine"})
    assert set(line) == FIELDS | {"event", "log_level"}
    expected = {
        "request_id": "mine",
        "recordid": "r7",
        "route": "/complete",
        "model": "scripted",
        "worker": 0,
        "status": 200,
        "prompt_tokens": 3,
        "completion_tokens": 3,
        "finish_reason": "stop",
        "error": None,
    }
    assert {name: line[name] for name in expected} == expected
    assert line["total_ms"] >= line["ttft_ms"] >= line["queue_ms"] >= 0


def test_a_refused_request_has_a_line_with_the_reason(client):
    _, line = line_of(client, json={"prompt": 5})
    assert (line["status"], line["error"], line["queue_ms"]) == (400, "invalid_parameter", None)


def test_a_request_that_names_no_known_model_tells_its_record(client):
    _, line = line_of(client, json={"prompt": "a", "model": "x", "recordid": "r"})
    assert (line["status"], line["error"], line["recordid"]) == (404, "model_not_found", "r")


def test_a_stream_that_fails_tells_the_error_beside_its_status(client, world):
    gate = Gate()
    world.inference.script = ["a", gate, RequestTimeoutError("late")]
    with capture_logs() as lines:
        response = client.post("/complete", json={"prompt": "a", "stream": True})
        chunks = response.iter_encoded()
        next(chunks)
        assert not lines, "the line is written at the end"
        gate.set()
        list(chunks)
        response.close()
    assert [(line["status"], line["error"], line["completion_tokens"]) for line in lines] == [
        (200, "request_timeout", 1)
    ]


@pytest.mark.parametrize("stream", [False, True])
def test_prompts_are_logged_only_when_asked_for(make_world, stream):
    body = {"prompt": "a secret", "stream": stream}
    _, line = line_of(client_of(make_world()), json=body)
    assert "secret" not in str(line) and "Hello" not in str(line)
    _, line = line_of(client_of(make_world(log_prompts=True)), json=body)
    assert (line["prompt"], line["completion"]) == ("a secret", "Hello,\nworld")
    _, line = line_of(client_of(make_world(log_prompts=True)), "/chat", json=body)
    assert line["prompt"] == [{"role": "user", "content": "a secret"}]


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("place", ["encode", "encode_chat", "vocabulary"])
def test_a_failure_on_the_way_does_not_quote_the_prompt(make_world, capsys, monkeypatch, log_format, place):
    """In the threads that handle requests, wherever a library raises."""

    private = "".join(("PRI", "VATE"))

    def fail(*_arguments, **_options):
        raise ValueError(private)

    world = make_world(log_format=log_format)
    monkeypatch.setattr(world.model, place, fail)
    configure_logging(log_format)
    path = "/chat" if place == "encode_chat" else "/complete"
    response = client_of(world).post(path, json={"prompt": private, "logprobs": 1})
    shown = capsys.readouterr().err
    assert response.status_code == 500 and private not in response.text
    assert "request_failed" in shown and private not in shown


def test_probes_do_not_drown_the_log(client):
    with capture_logs() as lines:
        client.get("/livez")
        client.get("/readyz")
    assert [line["log_level"] for line in lines] == ["debug", "debug"]


@pytest.mark.parametrize("given", ["a", "A-b_c.9", "x" * 64])
def test_a_well_formed_id_is_kept_on_every_route(client, given):
    for path in ("/livez", "/nope", "/v1/models"):
        assert client.get(path, headers={"X-Request-Id": given}).headers["X-Request-Id"] == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a/b", "é", "a;b", '"a"'])
def test_another_id_is_replaced(client, given):
    made = client.get("/livez", headers={"X-Request-Id": given}).headers["X-Request-Id"]
    assert made != given and 1 <= len(made) <= 64
    assert client.get("/livez").headers["X-Request-Id"] != made
