"""``/infill`` on the real engine: three forms, several holes, streams."""

from __future__ import annotations

import time

import pytest
import torch

from tests.contract.reading import DONE, assert_envelope, events_of
from tests.contract.real import RealWorld

FIELDS = {"max_new_tokens": 12, "ignore_eos": True}


@pytest.fixture(scope="module", params=["qwen-coder", pytest.param("incoder", marks=pytest.mark.slow)])
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
        ({"parts": ["a", "b"], "prompt": "b"}, "unsupported_parameter", "prompt"),
        ({"prefix": "a", "input_extra": [{"filename": "b"}]}, "invalid_parameter", "input_extra"),
        ({"prefix": "a", "n_predict": 5, "max_new_tokens": 6}, "invalid_parameter", "n_predict"),
        ({"prefix": "a", "samplers": ["mirostat"]}, "invalid_parameter", "samplers"),
        ({"prefix": "a", "lora": [{"id": 0, "scale": 0.5}]}, "unsupported_parameter", "lora"),
        ({"prefix": "a", "suffix": "x " * 2000}, "context_length_exceeded", "suffix"),
        ({"prefix": "a", "input_extra": [{"text": "x " * 2000}]}, "context_length_exceeded", "input_extra"),
        ({"prefix": "x " * 2000}, "context_length_exceeded", "prefix"),
        ({"parts": ["x " * 2000, ""]}, "context_length_exceeded", "parts"),
    ],
)
def test_bad_bodies_are_refused_by_name(client, world, body, code, param):
    assert_envelope(client.post("/infill", json=body), 400, code, param)
    assert world.num_places() == 0


def test_a_later_hole_that_never_fits_is_refused_before_the_first(client, world, monkeypatch):
    monkeypatch.setattr(world.inference.model, "context_tokens", 200)
    monkeypatch.setattr(world.inference, "submit", None, raising=False)
    response = client.post("/infill", json={"parts": ["a", "b", "c " * 300], **FIELDS})
    assert_envelope(response, 400, "context_length_exceeded", "parts")
    assert world.num_places() == 0


def favoured(world, text):
    """A bias that makes ``text``'s first token the next one, whatever the model would rather say."""
    return {str(world.inference.model.encode(text, add_special_tokens=False)[0]): 100}


def test_a_hole_that_what_fills_the_others_leaves_no_room_for_is_empty_and_told(client, world, monkeypatch):
    parts, model = ["a" * 10, "b" * 10, "c"], world.inference.model
    longest = max(len(model.encode_infill(parts, filled).ids) for filled in ([], [""]))
    monkeypatch.setattr(model, "context_tokens", longest + 1)
    body = client.post("/infill", json={"parts": parts, "logit_bias": favoured(world, "x")}).get_json()
    filled = body["infills"][0]
    assert set(filled) == {"x"} and body["infills"] == [filled, ""]
    assert (body["finish_reasons"], body["finish_reason"]) == (["length", "length"], "length")
    assert body["text"] == parts[0] + filled + parts[1] + parts[2]
    assert world.num_places() == 0


LLAMA_VIM = {
    "id_slot": 0,
    "input_prefix": "def f(x):\n",
    "input_suffix": "\n    return x\n",
    "input_extra": [{"text": "import os\n", "time": [120, 5], "filename": "a.py"}, {"text": "y = 1"}],
    "prompt": "    ",
    "n_predict": 12,
    "stop": [],
    "n_indent": 4,
    "top_k": 40,
    "top_p": 0.9,
    "samplers": ["top_k", "top_p", "infill"],
    "stream": False,
    "cache_prompt": True,
    "t_max_prompt_ms": 500,
    "t_max_predict_ms": 1000,
    "response_fields": ["content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached", "no/such"],
}


def test_llama_vims_request_is_answered_with_the_fields_it_reads(client):
    body = client.post("/infill", json=LLAMA_VIM).get_json()
    assert set(body) == {"content", "timings/prompt_n", "timings/predicted_ms", "truncated", "tokens_cached"}
    assert body["truncated"] is False


def test_llama_vims_warm_up_reads_the_prompt_only(client):
    body = {**LLAMA_VIM, "input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0, "temperature": 0.0}
    warm = {**body, "samplers": [], "t_max_prompt_ms": 1, "t_max_predict_ms": 1, "response_fields": [""]}
    response = client.post("/infill", json=warm)
    assert (response.status_code, response.get_json()) == (200, {})
    told = client.post("/infill", json={**warm, "response_fields": None}).get_json()
    assert (told["content"], told["stop_type"], told["usage"]["completion_tokens"]) == ("", "limit", 0)


def test_a_warm_up_saves_the_next_request_its_context(client):
    extra = [{"text": "import os\nimport sys\n" * 9, "filename": "a.py"}]
    body = {"input_extra": extra, "samplers": [], "n_predict": 0, "input_prefix": "", "input_suffix": ""}
    assert client.post("/infill", json=body).status_code == 200
    answer = client.post("/infill", json={**LLAMA_VIM, "input_extra": extra, "response_fields": None}).get_json()
    assert answer["tokens_cached"] > answer["tokens_evaluated"] / 2


def test_llama_vscodes_request_is_answered_as_llama_cpp_answers(client, world):
    sent = {**LLAMA_VIM, "n_cmpl": 3, "response_fields": None, "stream": False}
    body = client.post("/infill", json=sent).get_json()
    assert body["text"].startswith(LLAMA_VIM["input_prefix"] + "    " + body["content"])
    assert body["generation_settings"]["n_ctx"] == world.inference.model.context_tokens
    assert body["stop_type"] in ("eos", "word", "limit")
    assert body["timings"]["predicted_n"] == body["tokens_predicted"] == body["usage"]["completion_tokens"]
    assert {"prompt_n", "prompt_ms", "prompt_per_second", "predicted_ms", "predicted_per_second"} <= set(
        body["timings"]
    )
    *events, last, _ = events_of(client.post("/infill", json={**sent, "stream": True}))
    assert "".join(event["content"] for event in events) == body["content"]
    assert (last["content"], last["stop"]) == ("", True)


def test_the_start_of_the_middle_stands_before_what_is_generated(client, world):
    body = {"input_prefix": "a = ", "input_suffix": "\n", "prompt": "b +", **FIELDS, "samplers": ["infill"]}
    model = world.inference.model
    prompt = model.encode_infill(["a = ", "\n"], [], (), "b +")
    ids = torch.tensor([prompt.ids])
    output = model.checkpoint.model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        max_new_tokens=12,
        eos_token_id=sorted(prompt.stop_ids),
    )[0, len(prompt.ids) :].tolist()
    answer = client.post("/infill", json=body).get_json()
    assert answer["content"] == model.decode(output)
    assert answer["text"] == "a = b +" + answer["content"] + "\n"


@pytest.mark.slow
def test_below_zero_all_that_fits_is_generated(client, world):
    body = {"prefix": "a", "suffix": "b", "n_predict": -1, "logit_bias": favoured(world, "x")}
    answer = client.post("/infill", json=body).get_json()
    assert answer["usage"]["total_tokens"] == world.inference.model.context_tokens


@pytest.mark.slow
def test_without_a_bound_a_hole_ends_with_its_time_and_what_there_is(client, world, monkeypatch):
    forward = world.inference.model.checkpoint.model.forward

    def slow(*args, **kwargs):
        time.sleep(0.05)
        return forward(*args, **kwargs)

    monkeypatch.setattr(world.inference.model.checkpoint.model, "forward", slow)
    body = {"prefix": "a", "suffix": "b", "n_predict": -1, "logit_bias": favoured(world, "x")}
    response = client.post("/infill", json=body, headers={"X-Request-Timeout-S": "3"})
    assert response.status_code == 200
    assert response.get_json()["finish_reason"] == "length"
    assert 1 <= response.get_json()["usage"]["completion_tokens"] < 100


def test_late_a_completion_ends_at_a_line_break(client, world):
    body = {"prefix": "a", "suffix": "b", "t_max_predict_ms": 0.001, "logit_bias": favoured(world, "\n")}
    answer = client.post("/infill", json={**body, "n_predict": 50}).get_json()
    assert answer["content"] in ("\n", "\n\n")
    assert (answer["finish_reason"], answer["stop_type"]) == ("length", "limit")
    assert (
        len(client.post("/infill", json={**body, "n_predict": 50, "t_max_predict_ms": 0}).get_json()["content"]) == 50
    )


def test_a_line_that_is_indented_by_less_ends_the_completion(client, world):
    body = {"prefix": "a", "suffix": "b", "n_indent": 3, "n_predict": 9, "logit_bias": favoured(world, "\n")}
    answer = client.post("/infill", json=body).get_json()
    assert (answer["content"], answer["stop_type"]) == ("", "word")


def test_a_model_without_infilling_says_so(model_folder):
    world = RealWorld(model_folder("plain"), model_name="tiny")
    client = world.client()
    error = assert_envelope(client.post("/infill", json={"prefix": "a"}), 400, "unsupported_parameter")
    assert error["message"] == "the model tiny does not fill holes: it has no infilling format"
    named = client.post("/infill", json={"prefix": "a", "model": "tiny"})
    assert_envelope(named, 400, "unsupported_parameter", "model")
    error = assert_envelope(client.post("/fill-mask", json={"text": "a"}), 400, "unsupported_parameter")
    assert error["message"] == "the model tiny does not fill masks: its task is generate"
    assert_envelope(client.post("/v1/embeddings", json={"input": "a"}), 400, "unsupported_parameter")
    world.stop()
