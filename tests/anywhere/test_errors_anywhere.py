"""Refusals: the envelope, the status, and nothing lost behind them."""

from __future__ import annotations

import json

import pytest

from tests.anywhere.target import Target, assert_error, read_answer

MAX_BODY_BYTES = 2_000_000
LARGE = b'{"prompt": "' + b"a" * MAX_BODY_BYTES + b'"}'


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"{", "invalid_json", None),
        (b'{"prompt": NaN}', "invalid_json", None),
        (b"[" * 100_000, "invalid_json", None),
        (b"{}", "invalid_parameter", "prompt"),
        (b'{"prompt": 5}', "invalid_parameter", "prompt"),
        (b'{"prompt": "a", "suffixes": 1}', "unsupported_parameter", "suffixes"),
        (b'{"prompt": "a", "temperature": -1}', "invalid_parameter", "temperature"),
    ],
)
def test_what_cannot_be_served_is_400_and_names_the_field(target: Target, body, code, param):
    answer = target.post("/complete", data=body, headers={"Content-Type": "application/json"})
    assert_error(answer, 400, code, param)


def test_a_prompt_that_leaves_no_room_is_400(target: Target):
    assert_error(target.post("/complete", json={"prompt": "a b " * 9000}), 400, "context_length_exceeded", "prompt")


def test_unknown_routes_models_and_methods(target: Target):
    assert_error(target.get("/no-such-route"), 404, "route_not_found")
    assert_error(target.post("/complete", json={"prompt": "a", "model": "none"}), 404, "model_not_found", "model")
    refused = target.request("DELETE", "/complete")
    assert_error(refused, 405, "method_not_allowed")
    assert "POST" in refused.headers["Allow"]


def test_other_types_and_codings_are_415(target: Target):
    assert_error(
        target.post("/complete", data=b"a", headers={"Content-Type": "text/csv"}), 415, "unsupported_media_type"
    )
    coded = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    assert_error(target.post("/complete", data=b"{}", headers=coded), 415, "unsupported_media_type")


def test_a_key_is_needed_where_there_are_keys(target: Target):
    if target.key is None:
        pytest.skip("this server has no keys")
    for given in ("", "Bearer wrong", f"Basic {target.key}"):
        answer = target.post("/complete", json={"prompt": "a" * 1000}, headers={"Authorization": given})
        assert_error(answer, 401, "invalid_api_key")
    assert target.post("/tokenize", json={"text": "a"}, headers={"X-Api-Key": target.key}).status_code == 200


def test_a_page_of_another_origin_may_not_post(target: Target):
    answer = target.post("/complete", json={"prompt": "a"}, headers={"Origin": "http://elsewhere.example"})
    assert answer.status_code == 403


@pytest.mark.parametrize("is_chunked", [False, True], ids=["declared", "chunked"])
def test_a_body_above_the_limit_is_413(target: Target, is_chunked: bool):
    pieces = [LARGE[at : at + 65_536] for at in range(0, len(LARGE), 65_536)]
    data = iter(pieces) if is_chunked else LARGE
    answer = target.post("/complete", data=data, headers={"Content-Type": "application/json"})
    assert_error(answer, 413, "body_too_large")


def test_a_chunked_body_is_read_whole(target: Target):
    body = json.dumps({"prompt": "def f(", "max_new_tokens": 2}).encode()
    pieces = (body[at : at + 5] for at in range(0, len(body), 5))
    answer = target.post("/complete", data=pieces, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text


def test_a_client_that_waits_for_100_continue_gets_its_answer(target: Target):
    body = b'{"prompt": "a", "max_new_tokens": 2}'
    sock = target.begin("/complete", length=len(body), Expect="100-continue")
    assert sock.recv(65_536).startswith(b"HTTP/1.1 100")
    sock.sendall(body)
    assert read_answer(sock)[0] == 200


def test_a_body_that_does_not_come_is_408(target: Target):
    sock = target.begin("/complete", b'{"prompt"', length=100)
    sock.settimeout(target.body_timeout_s * 3 + 10)
    status, headers, body = read_answer(sock)
    assert status == 408 and json.loads(body)["error"]["code"] == "body_timeout"
    assert headers["x-request-id"] == json.loads(body)["request_id"]


def test_a_time_limit_of_the_callers_own_is_504_and_says_not_to_try_again(target: Target):
    body = {"prompt": "def f(", "max_new_tokens": 3000, "ignore_eos": True}
    late = target.post("/complete", json=body, headers={"X-Request-Timeout-S": "0.3"})
    assert late.status_code == 504 and late.headers["X-Should-Retry"] == "false"
    target.wait_until(target.is_idle, "the place is free")
