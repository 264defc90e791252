"""Text over HTTP from a real model: streamed and whole, alone and in choices, by seed."""

from __future__ import annotations

import json

import pytest

from tests.contract.running import KEY
from tests.thinned import few_of

HEADERS = {"Authorization": f"Bearer {KEY}"}
HARD = {"temperature": 2.0, "ignore_eos": True, "max_new_tokens": 40}
STOPS = {"stop": ["é", "th", "\n\n", "😀"], "truncate_before_pattern": ["^[a-z]+$"]}


def post(running, path="/complete", **body):
    response = running.post(path, json={"prompt": "def f(x): # é 你好 🎉", **body}, headers=HEADERS)
    assert response.status_code == 200, response.text
    return response


def streamed(running, **body):
    lines = post(running, stream=True, **body).content.decode().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return "".join(event["completion"] for event in events), events


@pytest.mark.parametrize(
    "options", few_of([STOPS, {}, {"logprobs": 1, "stop": "a"}], 1), ids=["stops", "plain", "logprobs"]
)
def test_what_is_streamed_joins_to_the_whole_text(running, options):
    for seed in range(10):
        whole = post(running, seed=seed, **HARD, **options).json()
        text, events = streamed(running, seed=seed, **HARD, **options)
        assert text == whole["completion"]
        assert events[-1]["finish_reason"] == whole["finish_reason"]
        if "logprobs" in options:
            ids = [entry["id"] for event in events for entry in event.get("logprobs", [])]
            assert ids == [entry["id"] for entry in whole["logprobs"]]


def test_bare_text_is_the_same_text(running):
    for seed in range(5):
        whole = post(running, seed=seed, **HARD).json()["completion"]
        headers = {**HEADERS, "Accept": "text/plain"}
        body = {"prompt": "def f(x): # é 你好 🎉", "seed": seed, "stream": True, **HARD}
        assert running.post("/complete", json=body, headers=headers).content.decode() == whole


def test_a_choice_is_the_completion_of_its_seed_whatever_runs_beside_it(running):
    several = post(running, seed=100, n=5, **HARD).json()["choices"]
    alone = [post(running, seed=100 + index, **HARD).json()["completion"] for index in range(5)]
    assert [choice["completion"] for choice in several] == alone
    assert len(set(alone)) == 5


def test_a_banned_word_does_not_come_and_a_bias_rules(running):
    plain = post(running, max_new_tokens=20, ignore_eos=True, logprobs=0).json()
    (first, *_) = plain["logprobs"]
    banned = post(running, max_new_tokens=20, ignore_eos=True, logprobs=0, logit_bias={str(first["id"]): -100}).json()
    assert first["id"] not in [entry["id"] for entry in banned["logprobs"]]
    forced = post(running, max_new_tokens=3, logit_bias={"70": 100}, logprobs=0).json()
    assert [entry["id"] for entry in forced["logprobs"]] == [70, 70, 70]


def test_the_capabilities_of_a_running_server_hold_measured_memory(running):
    status, body = running.request("GET", "/v1/capabilities", headers=HEADERS)
    (model,) = body["data"]
    assert status == 200 and model["engine"] == "mixed" and model["supports"]["infill"]
    assert model["kv_cache"]["max_bytes"] > 0 and model["memory"]["process_rss_bytes"] > 50 * 2**20
    assert running.get("/readyz")[1]["kv_cache"] == model["kv_cache"]
