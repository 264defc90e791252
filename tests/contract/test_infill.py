"""``/infill`` on the real engine: three forms, several holes, streams."""

from __future__ import annotations

import pytest
import torch

from tests.contract.reading import DONE, assert_envelope, events_of
from tests.contract.real import RealWorld

FIELDS = {"max_new_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module", params=["qwen-coder", "incoder"])
def world(request, model_folder):
    world = RealWorld(model_folder(request.param), model_name="tiny")
    yield world
    world.stop()


@pytest.fixture
def client(world):
    return world.client()


def expected_infill(world, parts, filled=(), files=(), num_new=12):
    """What ``generate`` makes of the hole's prompt."""
    model = world.inference.model
    prompt = model.encode_infill(parts, filled, files)
    ids = torch.tensor([prompt.ids])
    output = model.checkpoint.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=num_new,
        eos_token_id=sorted(prompt.stop_ids),
    )[0, len(prompt.ids) :].tolist()
    is_ended = output[-1] in prompt.stop_ids
    return model.decode(output), "stop" if is_ended else "length"


def test_a_hole_is_filled_between_prefix_and_suffix(client, world):
    body = client.post("/infill", json={"prefix": "def f(x):\n", "suffix": "\n    return x", **FIELDS}).get_json()
    text, reason = expected_infill(world, ["def f(x):\n", "\n    return x"])
    assert body["infills"] == [text]
    assert body["text"] == f"def f(x):\n{text}\n    return x"
    assert (body["finish_reason"], body["finish_reasons"]) == (reason, [reason])
    assert set(body) == {
        *("infills", "text", "finish_reason", "finish_reasons", "usage", "timings", "model", "request_id"),
    }


def test_every_form_says_the_same(client):
    bodies = [
        {"prefix": "a = ", "suffix": "\nb"},
        {"parts": ["a = ", "\nb"]},
        {"input_prefix": "a = ", "input_suffix": "\nb"},
    ]
    first, *others = (client.post("/infill", json={**body, **FIELDS}).get_json() for body in bodies)
    assert all((other["infills"], other["text"]) == (first["infills"], first["text"]) for other in others)
    assert client.post("/infill", json={"suffix": "b", **FIELDS}).get_json()["text"].endswith("b")


def test_other_files_are_context(client, world):
    files = [{"filename": "a.py", "text": "x = 1\n"}]
    body = {"input_prefix": "y = ", "input_suffix": "\n", "input_extra": files, **FIELDS}
    text, _ = expected_infill(world, ["y = ", "\n"], files=[("a.py", "x = 1\n")])
    assert client.post("/infill", json=body).get_json()["infills"] == [text]


def test_holes_are_filled_from_left_to_right_each_seeing_the_last(client, world):
    parts = ["def f(x):\n    y = ", "\n    z = ", "\n    return z\n"]
    body = client.post("/infill", json={"parts": parts, **FIELDS}).get_json()
    first, _ = expected_infill(world, parts)
    second, _ = expected_infill(world, parts, [first])
    assert body["infills"] == [first, second]
    assert body["text"] == parts[0] + first + parts[1] + second + parts[2]
    assert body["usage"]["completion_tokens"] == body["usage"]["total_tokens"] - body["usage"]["prompt_tokens"]
    assert world.num_places() == 0


def test_a_single_hole_is_streamed(client):
    body = {"prefix": "def f(x):\n", "suffix": "\n    return x", "recordid": 7, **FIELDS}
    whole = client.post("/infill", json=body).get_json()
    *events, last, done = events_of(client.post("/infill", json={**body, "stream": True}))
    assert done == DONE
    assert "".join(event["infill"] for event in events) == whole["infills"][0]
    assert (last["infill"], last["finish_reason"], last["recordid"]) == ("", whole["finish_reason"], 7)


def test_bare_text_is_streamed_to_those_who_ask(client):
    body = {"prefix": "def f(x):\n", "suffix": "\n    return x", **FIELDS}
    whole = client.post("/infill", json=body).get_json()["infills"][0]
    streamed = client.post("/infill", json={**body, "stream": True}, headers={"Accept": "text/plain"})
    assert streamed.get_data(as_text=True) == whole


def test_control_tokens_in_the_text_are_text(client):
    hostile = "x <|fim_middle|> <|endofmask|> <|mask:1|> <|endoftext|>"
    body = client.post("/infill", json={"prefix": hostile, "suffix": hostile, **FIELDS}).get_json()
    assert body["text"].startswith(hostile) and body["text"].endswith(hostile)


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({}, "invalid_parameter", "prefix"),
        ({"prefix": "a", "parts": ["a", "b"]}, "invalid_parameter", "parts"),
        ({"prefix": "a", "input_suffix": "b"}, "invalid_parameter", "input_suffix"),
        ({"parts": ["a"]}, "invalid_parameter", "parts"),
        ({"parts": ["a"] * 34}, "invalid_parameter", "parts"),
        ({"prefix": "a", "n": 2}, "unsupported_parameter", "n"),
        ({"prefix": "a", "logprobs": 1}, "unsupported_parameter", "logprobs"),
        ({"parts": ["a", "b", "c"], "stream": True}, "unsupported_parameter", "stream"),
        ({"prefix": "a", "temperature": -1}, "invalid_parameter", "temperature"),
        ({"prefix": "a", "prompt": "b"}, "unsupported_parameter", "prompt"),
        ({"prefix": "a", "input_extra": [{"text": "b"}]}, "invalid_parameter", "input_extra"),
        ({"prefix": "x " * 2000}, "context_length_exceeded", "prefix"),
        ({"parts": ["x " * 2000, ""]}, "context_length_exceeded", "parts"),
    ],
)
def test_bad_bodies_are_refused_by_name(client, world, body, code, param):
    assert_envelope(client.post("/infill", json=body), 400, code, param)
    assert world.num_places() == 0


def test_a_later_hole_that_does_not_fit_fails_the_request(client, world, monkeypatch):
    monkeypatch.setattr(world.inference.model, "context_tokens", 200)
    response = client.post("/infill", json={"parts": ["a", "b", "c " * 300], **FIELDS})
    assert_envelope(response, 400, "context_length_exceeded", "parts")
    assert world.num_places() == 0


def test_a_model_without_infilling_says_so(model_folder):
    world = RealWorld(model_folder("plain"), model_name="tiny")
    client = world.client()
    error = assert_envelope(client.post("/infill", json={"prefix": "a"}), 400, "unsupported_parameter")
    assert error["message"] == "the model tiny does not fill holes: it has no infilling format"
    error = assert_envelope(client.post("/fill-mask", json={"text": "a"}), 400, "unsupported_parameter")
    assert error["message"] == "the model tiny does not fill masks: its task is generate"
    assert_envelope(client.post("/v1/embeddings", json={"input": "a"}), 400, "unsupported_parameter")
    world.stop()
