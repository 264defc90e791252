"""text-generation-inference's routes on the real engine: its answers, events, details and errors."""

from __future__ import annotations

import json

import pytest

from app.http.application.factory import create_app
from tests.contract.real import RealWorld

PROMPT = "def load(folder):"


@pytest.fixture(scope="module")
def client(model_folder):
    world = RealWorld(model_folder("llama"), model_name="tiny", max_queue=20, max_batch_size=4)
    yield create_app(world.context).test_client()
    world.stop()


@pytest.fixture(scope="module")
def plain(client):
    """What our own route says, greedily."""

    def of(**options):
        body = {"prompt": PROMPT, "max_new_tokens": 8, "temperature": 0, "logprobs": 3, **options}
        return client.post("/complete", json=body).get_json()

    return of


def asked(client, path="/generate", **parameters):
    response = client.post(path, json={"inputs": PROMPT, "parameters": {"max_new_tokens": 8, **parameters}})
    assert response.status_code == 200, response.get_data(as_text=True)
    return response.get_json()


def events_of(response):
    assert response.status_code == 200, response.get_data(as_text=True)
    lines = response.get_data(as_text=True).split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: ")]


def test_a_text_is_continued_greedily_by_default(client, plain):
    assert asked(client) == {"generated_text": plain()["completion"]}
    assert asked(client, return_full_text=True)["generated_text"] == PROMPT + plain()["completion"]


def test_details_tell_every_token_and_why_the_text_ended(client, plain):
    details = asked(client, details=True, decoder_input_details=True, top_n_tokens=3)["details"]
    own = plain()
    assert [one["id"] for one in details["tokens"]] == [one["id"] for one in own["logprobs"]]
    scores = [one["logprob"] for one in own["logprobs"]]
    assert [one["logprob"] for one in details["tokens"]] == pytest.approx(scores, abs=1e-4)
    assert all(set(one) == {"id", "text", "logprob", "special"} for one in details["tokens"])
    best = [[one["id"] for one in tokens] for tokens in details["top_tokens"]]
    assert best == [[one["id"] for one in token["top_logprobs"]] for token in own["logprobs"]]
    assert (details["finish_reason"], details["generated_tokens"], details["seed"]) == ("length", 8, None)
    first, *rest = details["prefill"]
    assert first["logprob"] is None and all(one["logprob"] < 0 for one in rest)
    assert "".join(one["text"] for one in details["prefill"]) == PROMPT
    assert asked(client, details=True)["details"]["prefill"] == []


def test_a_stream_is_an_event_for_each_token_the_last_with_the_text(client, plain):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 8, "details": True, "top_n_tokens": 2}}
    response = client.post("/generate_stream", json=body)
    *events, last = events_of(response)
    own = plain()
    assert "[DONE]" not in response.get_data(as_text=True)
    assert [one["index"] for one in [*events, last]] == list(range(1, 9))
    assert [one["token"]["id"] for one in [*events, last]] == [one["id"] for one in own["logprobs"]]
    assert all(one["generated_text"] is None and one["details"] is None for one in events)
    assert all(len(one["top_tokens"]) == 2 for one in events)
    assert last["generated_text"] == own["completion"]
    counts = {"generated_tokens": 8, "input_length": own["usage"]["prompt_tokens"]}
    assert last["details"] == {"finish_reason": "length", "seed": None, **counts}
    texts = "".join(one["token"]["text"] for one in [*events, last] if not one["token"]["special"])
    assert own["completion"].startswith(texts)


def test_a_stop_string_that_ends_a_text_is_part_of_it(client, plain):
    whole = plain()["completion"]
    stop = whole[3:5]
    expected = whole[: whole.index(stop) + len(stop)]
    found = asked(client, stop=["never there", stop], details=True)
    assert found["generated_text"] == expected
    assert found["details"]["finish_reason"] == "stop_sequence"
    streamed = client.post("/generate_stream", json={"inputs": PROMPT, "parameters": {"stop": [stop]}})
    assert events_of(streamed)[-1]["generated_text"] == expected


def test_drawn_texts_tell_a_seed_that_gives_them_again(client):
    first = asked(client, do_sample=True, temperature=1.2, details=True)
    seed = first["details"]["seed"]
    again = asked(client, do_sample=True, temperature=1.2, details=True, seed=seed)
    assert again["generated_text"] == first["generated_text"]
    assert asked(client, temperature=1.2, details=True)["details"]["seed"] is not None
    assert asked(client, temperature=1.0, details=True)["details"]["seed"] is None


def test_of_a_prompt_only_its_end_is_read_where_that_is_asked(client):
    found = asked(client, truncate=3, details=True, decoder_input_details=True)
    assert len(found["details"]["prefill"]) == 3
    assert PROMPT.endswith("".join(one["text"] for one in found["details"]["prefill"]))


@pytest.mark.parametrize(
    "grammar", [{"type": "regex", "value": "(yes|no)"}, {"type": "json", "value": {"enum": ["yes", "no"]}}]
)
def test_a_grammar_is_followed(client, grammar):
    assert asked(client, grammar=grammar)["generated_text"].strip('"') in ("yes", "no")


def test_its_clients_post_to_the_root_and_get_a_list(client, plain):
    body = {"inputs": PROMPT, "parameters": {"max_new_tokens": 8, "stop": [], "seed": None}}
    [found] = client.post("/", json={**body, "stream": False}).get_json()
    assert found["generated_text"] == plain()["completion"]
    assert events_of(client.post("/", json={**body, "stream": True}))[-1]["generated_text"] == found["generated_text"]


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/"])
@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"best_of": 2, "do_sample": True}, "best_of"),
        ({"watermark": True}, "watermark"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"adapter_id": "a"}, "adapter_id"),
        ({"min_p": 0.5}, "min_p"),
        ({"temperature": 0}, "temperature"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"grammar": {"type": "json", "value": {"type": "strange"}}}, "grammar"),
        ({"grammar": {"type": "lark", "value": "a"}}, "grammar"),
    ],
)
def test_what_is_not_followed_is_refused_by_name_in_its_form(client, path, parameters, field):
    refused = client.post(path, json={"inputs": PROMPT, "parameters": parameters})
    assert refused.status_code == 400
    assert set(refused.get_json()) == {"error", "error_type"}
    assert (field in refused.get_json()["error"], refused.get_json()["error_type"]) == (True, "validation")
    assert refused.headers["X-Request-Id"]
    assert asked(client)["generated_text"]


@pytest.mark.parametrize("body", [{"inputs": ""}, {"inputs": "word " * 3000}, {"parameters": {}}])
def test_bad_inputs_are_refused_in_its_form(client, body):
    refused = client.post("/generate", json=body)
    assert (refused.status_code, refused.get_json()["error_type"]) == (400, "validation")
    assert refused.get_json()["error"].startswith("inputs")


def test_information_is_of_the_first_model_in_the_form_for_its_task(client):
    told = client.get("/info").get_json()
    assert (told["model_id"], told["model_pipeline_tag"]) == ("tiny", "text-generation")
    assert told["max_total_tokens"] == told["max_input_tokens"] + 1 == 1024
    assert client.get("/health").status_code == 200
