"""Every kind of bad input: a clear 4xx that names the field, and a server that works afterwards."""

from __future__ import annotations

from io import BytesIO

import pytest

from tests.contract.conftest import client_of
from tests.contract.reading import assert_envelope

JSON = "application/json"


@pytest.fixture(autouse=True)
def still_works(request, client, world):
    """After each test a good request is answered, and no place is taken."""
    yield
    assert client.post("/complete", json={"prompt": "abc"}).status_code == 200
    assert world.num_places() == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"   ",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"1",
        b"{} {}",
        b"{'prompt': 'a'}",
        b'{"prompt": "\xff"}',
        '{"prompt": "é"}'.encode("latin-1"),
        '{"prompt": "a"}'.encode("utf-16"),
        b'\xef\xbb\xbf{"prompt": "a"}',
        b'{"prompt": "a", "temperature": NaN}',
        b'{"prompt": "a", "temperature": -Infinity}',
        b'{"prompt": "a", "temperature": 1e999}',
        b'{"prompt": "a", "top_k": 1' + b"0" * 5000 + b"}",
        b'{"prompt": "\\ud800"}',
        b'{"prompt": "a\\udfff"}',
        b'{"prompt": "a", "\\ud800": 1}',
        b'{"prompt": "a\nb"}',
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        b"\x00",
    ],
    ids=lambda raw: repr(raw[:40]),
)
@pytest.mark.parametrize("path", ["/complete", "/chat", "/"])
def test_what_is_not_a_json_object_in_utf8_is_refused(client, path, raw):
    assert_envelope(client.post(path, data=raw, content_type=JSON), 400, "invalid_json")


def test_surrogate_pairs_and_nul_are_legal(client, world):
    raw = b'{"prompt": "\\ud83d\\ude00\\u0000\\u2028"}'
    assert client.post("/complete", data=raw, content_type=JSON).status_code == 200
    assert world.model.encoded == ["\U0001f600\x00\u2028"]


@pytest.mark.parametrize(
    "route", ["/complete", "/chat", "/infill", "/v1/completions", "/v1/chat/completions", "/", "/tokenize"]
)
def test_a_key_that_comes_twice_is_refused_on_every_route(client, world, route):
    for raw in (b'{"prompt": "x", "prompt": "y"}', b'{"messages": [{"role": "user", "content": "a", "content": "b"}]}'):
        assert_envelope(client.post(route, data=raw, content_type=JSON), 400, "invalid_json")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", None),
        ("prompt", 5),
        ("prompt", ["a"]),
        ("prompt", [[[[1]]]]),
        ("max_new_tokens", 0),
        ("max_new_tokens", -1),
        ("max_new_tokens", True),
        ("max_new_tokens", 1.5),
        ("max_new_tokens", "5"),
        ("temperature", True),
        ("temperature", "0.5"),
        ("temperature", -0.1),
        ("temperature", 101),
        ("temperature", 1e-320),
        ("temperature", 10**299),
        ("top_p", 1.1),
        ("top_p", -0.1),
        ("top_p", False),
        ("top_k", -2),
        ("top_k", 2.0),
        ("top_k", 10**200),
        ("min_p", 2),
        ("repetition_penalty", 0),
        ("repetition_penalty", 1e-320),
        ("stop", ""),
        ("stop", 5),
        ("stop", [1]),
        ("stop", [""]),
        ("stop", ["a"] * 65),
        ("stop", "a" * 257),
        ("stop", {"a": 1}),
        ("truncate_before_pattern", "^#"),
        ("truncate_before_pattern", ["("]),
        ("truncate_before_pattern", ["a(?=b)"]),
        ("truncate_before_pattern", ["(a)\\1"]),
        ("truncate_before_pattern", ["a{1000}{1000}"]),
        ("truncate_before_pattern", ["a"] * 17),
        ("truncate_before_pattern", ["a" * 257]),
        ("ignore_eos", 1),
        ("seed", -1),
        ("seed", 2**63),
        ("seed", True),
        ("echo", "yes"),
        ("stream", 1),
        ("recordid", True),
        ("recordid", ["a"]),
        ("recordid", "a" * 257),
        ("model", 5),
        ("n", True),
        ("n", 0),
        ("n", 17),
        ("n", 10**9),
        ("logprobs", "yes"),
        ("logprobs", True),
        ("logprobs", -1),
        ("logprobs", 21),
        ("typical_p", 0),
        ("typical_p", 1.1),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("logit_bias", {"1": 101}),
        ("logit_bias", {"a": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"1114112": 1}),
        ("logit_bias", {str(token): 1 for token in range(1025)}),
        ("logit_bias", [1]),
        ("bad_words", "a"),
        ("bad_words", [""]),
        ("bad_words", ["a"] * 65),
        ("stop_token_ids", [-1]),
        ("stop_token_ids", [1114112]),
        ("stop_token_ids", [True]),
        ("stop_token_ids", list(range(65))),
        ("min_new_tokens", -1),
        ("min_new_tokens", 64),
        ("response_format", {"type": "xml"}),
        ("response_format", {"type": "json_schema"}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
        ("response_format", {"type": "json_schema", "json_schema": {"name": "a", "schema": {"impossible": 1}}}),
        ("regex", ""),
        ("regex", "impossible"),
        ("regex", "a" * 4097),
    ],
)
def test_a_value_of_the_wrong_type_or_out_of_bounds_is_refused_by_name(client, field, value):
    assert_envelope(client.post("/complete", json={"prompt": "a", field: value}), 400, "invalid_parameter", field)


@pytest.mark.parametrize("other", [{"ignore_eos": True}, {"min_new_tokens": 2}, {"bad_words": ["a"]}, {"regex": "a"}])
def test_what_could_forbid_the_end_of_a_constrained_completion_is_refused(client, other):
    body = {"prompt": "a", "response_format": {"type": "json_object"}, **other}
    assert_envelope(client.post("/complete", json=body), 400, "invalid_parameter", next(iter(other)))


@pytest.mark.parametrize(("field", "value"), [("n", 2), ("logprobs", 0)])
@pytest.mark.parametrize("body", [{"data": "a"}, {"prompt": "a"}])
def test_what_has_no_place_in_the_answers_of_the_root_is_refused(client, body, field, value):
    response = client.post("/", json={**body, field: value})
    assert response.status_code == 400 and field in response.get_data(as_text=True)


@pytest.mark.parametrize("field", ["best_of", "max_tokens", "prompt ", "PROMPT", "\x00", "é", "__class__"])
def test_an_unknown_field_is_refused_by_name(client, field):
    assert_envelope(client.post("/complete", json={"prompt": "a", field: 1}), 400, "unsupported_parameter", field)


def test_a_huge_field_name_is_not_sent_back_whole(client):
    response = client.post("/complete", json={"prompt": "a", "x" * 100_000: 1})
    assert response.status_code == 400 and len(response.data) < 1000


@pytest.mark.parametrize(
    ("field", "value"), [("n", 1), ("n", None), ("logprobs", False), ("logprobs", None), ("temperature", 1)]
)
def test_values_that_ask_for_nothing_special_are_fine(client, field, value):
    assert client.post("/complete", json={"prompt": "a", field: value}).status_code == 200


def test_prompt_and_data_together_are_refused(client):
    assert_envelope(client.post("/complete", json={"prompt": "a", "data": "b"}), 400, "invalid_parameter", "data")
    assert_envelope(client.post("/complete", json={}), 400, "invalid_parameter", "prompt")


@pytest.mark.parametrize(
    "content_type",
    [None, "text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin-1", "application/jsonx"],
)
def test_other_content_types_are_refused(client, content_type):
    response = client.post("/complete", data=b'{"prompt": "a"}', content_type=content_type)
    assert_envelope(response, 415, "unsupported_media_type")


@pytest.mark.parametrize("content_type", ["application/json; charset=UTF-8", "Application/JSON;charset=utf8"])
def test_utf8_may_be_named(client, content_type):
    assert client.post("/complete", data=b'{"prompt": "a"}', content_type=content_type).status_code == 200


def test_a_body_over_the_limit_is_refused(make_world):
    client = client_of(make_world(max_body_bytes=100))
    fits = b'{"prompt": "a"}'.ljust(100)
    assert client.post("/complete", data=fits, content_type=JSON).status_code == 200
    error = assert_envelope(client.post("/complete", data=fits + b" ", content_type=JSON), 413, "body_too_large")
    assert "100" in error["message"]
    form = b"data=" + b"a" * 100
    response = client.put("/", data=form, content_type="application/x-www-form-urlencoded")
    assert_envelope(response, 413, "body_too_large")


def test_a_chunked_body_is_bounded_too(make_world):
    client = client_of(make_world(max_body_bytes=100))
    chunked = {"wsgi.input_terminated": True, "CONTENT_TYPE": JSON, "HTTP_TRANSFER_ENCODING": "chunked"}
    fits = b'{"prompt": "a"}'.ljust(100)
    good = client.post("/complete", environ_overrides={**chunked, "wsgi.input": BytesIO(fits)})
    assert good.status_code == 200
    for too_long in (fits + b" ", b'{"prompt": "' + b"a" * 1000):
        bad = client.post("/complete", environ_overrides={**chunked, "wsgi.input": BytesIO(too_long)})
        assert_envelope(bad, 413, "body_too_large")


def test_a_body_that_ends_early_is_refused(client):
    cut = {"CONTENT_LENGTH": "50", "wsgi.input": BytesIO(b'{"prompt"')}
    assert_envelope(client.post("/complete", content_type=JSON, environ_overrides=cut), 400, "bad_request")


@pytest.mark.parametrize("seconds", ["", "0", "-1", "nan", "inf", "1e3", "abc", "1_0", "٣", "9" * 400])
def test_a_time_limit_that_is_no_number_above_zero_is_refused(client, seconds):
    response = client.post("/complete", json={"prompt": "a"}, headers={"X-Request-Timeout-S": seconds})
    assert_envelope(response, 400, "invalid_parameter", "X-Request-Timeout-S")
