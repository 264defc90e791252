"""Five hundred seeds of sampled text: emoji, CJK, combining marks and stop strings, split over tokens.

The small tokenizer has no such character whole: each comes as two to four tokens, and a length
bound cuts some in the middle.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.contract.reading import DONE, events_of
from tests.contract.real import RealWorld
from tests.thinned import few_of

NUM_CHOICES = 16
FIRST_SEEDS = range(0, 128, NUM_CHOICES)
PROMPT = "def f(x): # é 你好 🎉"
# With a joined emoji, a flag, a skin tone, accents as marks of their own, and a variation selector.
ALPHABET = "ab \\n你好世界한é👩\u200d💻🇩🇪👍🏽e\u0301n\u0303❤\ufe0f😀🎉"
# Some reach their own end within the bound, and it cuts some in the middle of a character.
SPELLED = {"regex": f"[{ALPHABET}]{{30,40}}", "max_new_tokens": 40}
STOPS = ["你好", "😀🎉", "\u0301", "\n\n", "🏽", "世界\n", "👩\u200d💻", "🇩🇪"]
KINDS = {
    "free": {"ignore_eos": True, "max_new_tokens": 40},
    "spelled": SPELLED,
    "stops": {**SPELLED, "stop": STOPS},
    "patterns": {**SPELLED, "stop": STOPS[:2], "truncate_before_pattern": ["^[ab]{1,3}$", "😀.?世", "\u0303{1,2}[éa]"]},
}


@pytest.fixture(scope="module")
def world(model_folder):
    world = RealWorld(model_folder("qwen2"), max_batch_size=NUM_CHOICES, model_name="tiny")
    yield world
    world.stop()


def whole_texts(client, body):
    choices = client.post("/complete", json=body).get_json()["choices"]
    return [(one["completion"], one["finish_reason"]) for one in choices]


def streamed_texts(client, body):
    """Each choice's joined pieces with its finish reason, and the largest number of pieces of a choice."""
    *events, _, done = events_of(client.post("/complete", json={**body, "stream": True}))
    assert done == DONE
    pieces: list[list[str]] = [[] for _ in range(NUM_CHOICES)]
    reasons: dict[int, str] = {}
    for event in events:
        pieces[event["index"]].append(event["completion"])
        if "finish_reason" in event:
            reasons[event["index"]] = event["finish_reason"]
    return [("".join(one), reasons[index]) for index, one in enumerate(pieces)], max(map(len, pieces))


@pytest.fixture(scope="module")
def token_texts(world):
    """The text of each choice's tokens, with nothing that stops it: the same for kinds that stop differently."""
    known: dict[str, list[str]] = {}
    decode = world.inference.model.decode

    def texts(body):
        free = {name: value for name, value in body.items() if name not in ("stop", "truncate_before_pattern")}
        if (key := json.dumps(free)) not in known:
            choices = world.client().post("/complete", json={**free, "logprobs": 0}).get_json()["choices"]
            known[key] = [decode([one["id"] for one in choice["logprobs"]]) for choice in choices]
        return known[key]

    return texts


def cut(text, stop=(), truncate_before_pattern=(), **_):
    """The text before the first of all stop strings and pattern matches; a pattern sees that no line begins it."""
    ends = [text.find(one) for one in stop if one in text]
    for pattern in truncate_before_pattern:
        match = re.compile(pattern, re.MULTILINE).search(PROMPT[-1] + text, 1)
        ends += [match.start() - 1] if match else []
    return text[: min(ends, default=len(text))]


@pytest.mark.parametrize("kind", few_of(["free", "spelled", "stops", "patterns"], 1))
def test_stream_and_whole_text_of_every_seed_are_those_of_its_tokens_up_to_the_first_stop(world, token_texts, kind):
    client, seen, most_pieces = world.client(), set(), 0
    for seed in FIRST_SEEDS:
        body = {"prompt": PROMPT, "temperature": 2.0, "n": NUM_CHOICES, "seed": seed, **KINDS[kind]}
        texts = whole_texts(client, body)
        streamed, num_pieces = streamed_texts(client, body)
        assert streamed == texts
        assert [text for text, _ in texts] == [cut(text, **body) for text in token_texts(body)]
        seen |= set(texts)
        most_pieces = max(most_pieces, num_pieces)
    assert len(seen) > 100
    # How many tokens come in one piece depends on how soon a busy machine lets the reader read.
    assert most_pieces > 3
    assert_worth_it(kind, seen)


def assert_worth_it(kind, seen):
    """The seeds met what they are for."""
    joined = "".join(text for text, _ in seen)
    if kind == "free":
        assert "\ufffd" in joined
        return
    assert not any("\ufffd" in text[:-1] for text, _ in seen), "only a length bound cuts a character"
    if kind == "spelled":
        assert set(ALPHABET.replace("\\n", "\n")) <= set(joined)
        assert sum(text.endswith("\ufffd") for text, _ in seen) > 3
        assert {reason for _, reason in seen} == {"stop", "length"}
    else:
        assert sum(reason == "stop" for _, reason in seen) > 60
