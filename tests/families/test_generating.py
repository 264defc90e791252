"""Every generating family: from a folder to an answer that is ``generate``'s own, and again after a restart."""

from __future__ import annotations

import pytest

from tests.contract.real import RealWorld
from tests.families import reference
from tests.families.folders import GENERATING
from tests.thinned import few_of
from tests.unit.engine.driver import TokenLog

PROMPT = "def fill(text: str) -> str:\n    return from .\n# h\u00e9llo \u4e16\u754c\n"
NUM_NEW = 24
GREEDY = {"prompt": PROMPT, "max_new_tokens": NUM_NEW, "temperature": 0, "repetition_penalty": 1.0}
# A byte that is no text takes good ones beside it along when transformers decodes the whole: nothing to
# compare with where a random model writes such bytes. test_tokenizers.py has texts that are text.
BYTE_FALLBACK = {"llama"}


class RequestLog(TokenLog):
    """The engine's tokens per request."""

    def of_request(self, body: dict) -> list[int]:
        [job] = [job for job in self._tokens if job.request_id == body["request_id"]]
        return self.of(job)


@pytest.mark.parametrize("family", few_of(GENERATING, 4))
def test_greedy_answers_are_generates_token_for_token_before_and_after_a_restart(
    serve, family_folder, monkeypatch, family
):
    log = RequestLog(monkeypatch)
    folder = family_folder(family)
    world = serve(family, dtype="float32")
    prompt = world.inference.model.encode(PROMPT)
    expected = reference.greedy(folder, prompt, NUM_NEW)
    first = world.client().post("/complete", json=GREEDY).get_json()
    assert log.of_request(first) == expected
    if family not in BYTE_FALLBACK:
        assert first["completion"] == reference.text(folder, expected)
    assert first["usage"]["prompt_tokens"] == len(prompt)
    world.stop()
    again = serve(family, dtype="float32").client().post("/complete", json=GREEDY).get_json()
    assert log.of_request(again) == expected
    assert again["completion"] == first["completion"]


@pytest.mark.parametrize("family", few_of(GENERATING, 4))
def test_the_prompt_is_what_the_tokenizer_makes_of_it(serve, family_folder, family):
    client = serve(family).client()
    _, tokenizer = reference.load(family_folder(family))
    ids = client.post("/tokenize", json={"text": PROMPT}).get_json()["tokens"]
    assert ids == tokenizer(PROMPT)["input_ids"]
    plain = client.post("/tokenize", json={"text": PROMPT, "add_special_tokens": False}).get_json()["tokens"]
    assert client.post("/detokenize", json={"tokens": plain}).get_json()["text"] == PROMPT


@pytest.mark.parametrize("family", few_of(GENERATING, 4))
def test_sampling_with_a_seed_repeats_and_several_at_once_agree(serve, family):
    client = serve(family, max_batch_size=2).client()
    body = {"prompt": PROMPT, "max_new_tokens": 8, "temperature": 0.8, "top_p": 0.95, "seed": 5, "n": 2}
    answers = [client.post("/complete", json=body).get_json()["choices"] for _ in range(2)]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("family", few_of(GENERATING, 4))
def test_sequences_decode_together_wherever_layers_keep_keys_and_values(serve, family):
    assert engine_of(serve(family)) in ("mixed", "batched")


def test_a_sliding_window_as_long_as_the_context_runs_on_slots(serve):
    """The published StarCoder2 sees 4096 tokens back: at the default context that is all of it."""
    assert engine_of(serve("starcoder2", max_context_tokens=64)) == "mixed"


def engine_of(world: RealWorld) -> str:
    [model] = world.client().get("/v1/capabilities").get_json()["data"]
    return model["engine"]
