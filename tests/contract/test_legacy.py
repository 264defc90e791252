"""``/``: the requests of the systems that Forklift replaces."""

from __future__ import annotations

import pytest

from tests.contract.conftest import client_of
from tests.contract.reading import DONE, assert_envelope, events_of


def test_post_data_answers_prompt_and_completion_as_a_json_string(client):
    response = client.post("/", json={"data": "#print hello\n"})
    assert response.get_json() == "#print hello\nHello,\nworld"


def test_other_fields_of_complete_are_allowed_beside_data(client, world):
    response = client.post("/", json={"data": "ab", "max_new_tokens": 5, "truncate_before_pattern": ["^#"]})
    assert response.get_json() == "abHello,\nworld"
    assert world.inference.jobs[0].params.max_new_tokens == 5
    assert client.post("/", json={"data": "ab", "echo": False}).get_json() == "Hello,\nworld"


def test_nothing_cuts_the_completion_by_default(client, world):
    client.post("/", json={"data": "ab"})
    assert world.inference.jobs[0].params.truncate_before_pattern == ()


def test_put_with_a_form_field_answers_the_same(client):
    assert client.put("/", data={"data": "a b+\u00e9"}).get_json() == "a b+\u00e9Hello,\nworld"
    multipart = client.put("/", data={"data": "\u00e9\ufffd"}, content_type="multipart/form-data")
    assert multipart.get_json() == "\u00e9\ufffdHello,\nworld"


def test_post_prompt_answers_three_fields_and_nothing_else(client, world):
    body = client.post("/", json={"prompt": "hi"}).get_json()
    assert set(body) == {"response", "status", "time"}
    assert (body["response"], body["status"]) == ("Hello,\nworld", 200)
    assert world.model.encoded == [[{"role": "user", "content": "hi"}]]


def test_both_forms_stream(client):
    completion = events_of(client.post("/", json={"data": "ab", "stream": True}))
    assert "".join(event["completion"] for event in completion[:-1]) == "abHello,\nworld"
    chat = events_of(client.post("/", json={"prompt": "ab", "stream": True}))
    assert "".join(event["response"] for event in chat[:-1]) == "Hello,\nworld"
    assert completion[-1] == chat[-1] == DONE


def test_errors_for_a_prompt_caller_have_its_own_form_and_a_real_status(make_world):
    world = make_world(max_queue=0)
    client = client_of(world)
    world.context.admission.enter()
    response = client.post("/", json={"prompt": "hi"})
    body = response.get_json()
    assert response.status_code == body["status"] == 503
    assert set(body) == {"response", "status", "time"}
    assert int(response.headers["Retry-After"]) >= 1
    assert_envelope(client.post("/", json={"data": "hi"}), 503, "overloaded")
    world.board.free(0)


def test_a_bad_field_of_a_prompt_caller_is_told_in_its_own_form(client):
    body = client.post("/", json={"prompt": "hi", "temperature": True}).get_json()
    assert body["status"] == 400 and "temperature" in body["response"]


@pytest.mark.parametrize("body", [{}, {"data": "a", "prompt": "b"}, {"text": "a"}])
def test_neither_or_both_forms_are_refused(client, body):
    assert_envelope(client.post("/", json=body), 400, "invalid_parameter", "data")


@pytest.mark.parametrize(
    ("form", "code", "param"),
    [
        (b"", "invalid_parameter", "data"),
        (b"data=a&data=b", "invalid_parameter", "data"),
        (b"data=a&max_length=9", "unsupported_parameter", "max_length"),
        (b"data=%ff", "bad_request", None),
        (b"data=\xff", "bad_request", None),
        (b"a=b&" * 200, "bad_request", None),
    ],
)
def test_a_bad_form_is_refused(client, form, code, param):
    response = client.put("/", data=form, content_type="application/x-www-form-urlencoded")
    assert_envelope(response, 400, code, param)
    assert client.put("/", data={"data": "a"}).status_code == 200


def test_a_multipart_form_that_is_not_utf8_is_refused(client):
    part = b'--x\r\nContent-Disposition: form-data; name="data"\r\n\r\n\xff\r\n--x--\r\n'
    assert_envelope(client.put("/", data=part, content_type="multipart/form-data; boundary=x"), 400, "bad_request")
    assert_envelope(client.put("/", data=b"junk", content_type="multipart/form-data"), 400, "invalid_parameter", "data")


def test_plain_text_is_for_models_that_fill_masks(client):
    assert_envelope(client.post("/", data="test [MASK]", content_type="text/plain"), 400, "unsupported_parameter")
    form = "application/x-www-form-urlencoded"
    assert_envelope(client.post("/", data="test [MASK]", content_type=form), 400, "unsupported_parameter")
    assert_envelope(client.post("/", data="a", content_type="text/html"), 415, "unsupported_media_type")
    assert_envelope(client.put("/", json={"data": "a"}), 415, "unsupported_media_type")


def test_get_points_to_the_routes(client):
    body = client.get("/").get_json()
    assert body["name"] == "forklift" and "/complete" in body["routes"] and body["version"]
