"""``/tokenize`` and ``/detokenize``, for models of every task."""

from __future__ import annotations

import pytest

from tests.contract.reading import assert_envelope
from tests.contract.real import RealWorld

TEXT = "def f():\n\treturn 'é 你好 🎉'"


@pytest.fixture(scope="module", params=["qwen2", "bert"])
def world(request, model_folder):
    world = RealWorld(model_folder(request.param))
    yield world
    world.stop()


@pytest.fixture
def client(world):
    return world.client()


def test_tokens_come_with_their_names_and_their_number(client, world):
    body = client.post("/tokenize", json={"text": "def f"}).get_json()
    assert set(body) == {"tokens", "token_strings", "count", "max_context"}
    tokenizer = world.inference.model.tokenizer
    assert body["tokens"] == tokenizer("def f")["input_ids"]
    assert body["token_strings"] == tokenizer.convert_ids_to_tokens(body["tokens"])
    assert (body["count"], body["max_context"]) == (len(body["tokens"]), world.inference.model.context_tokens)


def test_special_tokens_can_be_left_out(client, world):
    bare = client.post("/tokenize", json={"text": "def f", "add_special_tokens": False}).get_json()
    assert bare["tokens"] == world.inference.model.tokenizer("def f", add_special_tokens=False)["input_ids"]


def test_text_makes_the_round_trip_where_the_tokenizer_keeps_it(client, world):
    ids = client.post("/tokenize", json={"text": TEXT, "add_special_tokens": False}).get_json()["tokens"]
    text = client.post("/detokenize", json={"tokens": ids}).get_json()["text"]
    assert text == TEXT if world.inference.model.task == "generate" else text.startswith("def f (")


def test_special_tokens_are_shown(client, world):
    name = world.inference.model.tokenizer.pad_token
    ids = client.post("/tokenize", json={"text": name}).get_json()["tokens"]
    assert name in client.post("/detokenize", json={"tokens": ids}).get_json()["text"]


def test_nothing_is_nothing(client):
    assert client.post("/detokenize", json={"tokens": []}).get_json() == {"text": ""}
    assert client.post("/tokenize", json={"text": "", "add_special_tokens": False}).get_json()["count"] == 0


@pytest.mark.parametrize("tokens", [[384], [-1], [2**31], ["1"], [True], "1", None])
def test_tokens_that_the_model_has_not_are_refused(client, tokens):
    assert_envelope(client.post("/detokenize", json={"tokens": tokens}), 400, "invalid_parameter", "tokens")


def test_bad_fields_are_refused_by_name(client):
    assert_envelope(client.post("/tokenize", json={}), 400, "invalid_parameter", "text")
    assert_envelope(client.post("/tokenize", json={"text": "a", "n": 1}), 400, "unsupported_parameter", "n")
    assert_envelope(client.post("/tokenize", json={"text": "a", "model": "x"}), 404, "model_not_found", "model")
