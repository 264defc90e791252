"""``/translate``, ``/summarize`` and prompts of ``/v1/completions`` on the real engine: what ``generate`` says."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from tests.contract.reading import assert_envelope
from tests.contract.real import RealWorld
from tests.contract.text_tasks import answer_of
from tests.thinned import few_of
from tests.tiny_seq2seq import T5_PARAMS
from tests.waiting import wait_until

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")
TEXTS = ["def load(folder):", "a", "the tokenizer of a model with random weights", "return x", "class Reader: pass"]
# Of each family that translates: what the request says, and what the same is for its tokenizer and for `generate`.
LANGUAGES = {
    "t5": {"src_lang": "en", "tgt_lang": "de"},
    "mbart": {"src_lang": "en_XX", "tgt_lang": "ro_RO"},
    "mbart50": {"src_lang": "de_DE", "tgt_lang": "fr_XX"},
    "m2m100": {"src_lang": "en", "tgt_lang": "fr"},
    "nllb": {"src_lang": "fra_Latn", "tgt_lang": "deu_Latn"},
    "marian": {"src_lang": "eng", "tgt_lang": "deu"},
}
# A pair of T5's whose settings have one beam.
GREEDY = {"src_lang": "en", "tgt_lang": "fr"}
SUMMARIZERS = ("t5", "bart", "pegasus")


@pytest.fixture(scope="module")
def serve(model_folder):
    """One world for each model and number of rows, made when it is first asked for."""
    worlds = {}

    def client(family, rows=8):
        if (family, rows) not in worlds:
            folder = model_folder(family)
            worlds[family, rows] = RealWorld(folder, model_name=family, max_queue=60, max_batch_size=rows)
        return worlds[family, rows].client()

    client.worlds = worlds
    yield client
    for world in worlds.values():
        world.stop()


@pytest.fixture(scope="module")
def reference(model_folder):
    """What `generate` of the loaded checkpoint makes of a text, alone."""
    loaded = {}

    def of(family, text, languages=None, **changes):
        if family not in loaded:
            folder = model_folder(family)
            loaded[family] = AutoTokenizer.from_pretrained(folder), AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
        tokenizer, model = loaded[family]
        if languages is not None:
            text, changes = told(family, tokenizer, text, languages, changes)
        with torch.inference_mode():
            [ids] = model.generate(**tokenizer(text, return_tensors="pt"), **changes)
        return tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)

    return of


def told(family, tokenizer, text, languages, changes):
    """As the families' pages say that a language is told."""
    if family == "t5":
        params = dict(T5_PARAMS[f"translation_{languages['src_lang']}_to_{languages['tgt_lang']}"])
        return params.pop("prefix") + text, params | changes
    if family == "marian":
        return f">>{languages['tgt_lang']}<< {text}", changes
    tokenizer.src_lang = languages["src_lang"]
    target = tokenizer.lang_code_to_id if hasattr(tokenizer, "lang_code_to_id") else tokenizer.get_vocab()
    name = "decoder_start_token_id" if family == "mbart" else "forced_bos_token_id"
    return text, {name: target[languages["tgt_lang"]]} | changes


def summarized(reference, family, text):
    params = dict(T5_PARAMS["summarization"]) if family == "t5" else {}
    return reference(family, params.pop("prefix", "") + text, **params)


# In the default suite one, which the others differ from: by prefixes of text, a first token, a forced token.
@pytest.mark.parametrize(
    "family",
    [family if family == "mbart" else pytest.param(family, marks=pytest.mark.slow) for family in LANGUAGES],
)
def test_translations_are_those_of_generate_alone_and_together(serve, reference, family):
    languages = LANGUAGES[family]
    expected = [reference(family, text, languages) for text in TEXTS]
    assert len(set(expected)) > 1
    for rows in (1, 8):
        client = serve(family, rows)
        alone = answer_of(client.post("/translate", json={"text": TEXTS[0], **languages}))
        assert alone["translation"] == expected[0]
        assert alone["finish_reason"] in ("stop", "length")
        together = answer_of(client.post("/translate", json={"text": TEXTS, **languages}))
        assert together["translation"] == expected
    assert set(together) == {"translation", "finish_reason", "usage", "timings", "model", "request_id"}


@pytest.mark.parametrize("family", few_of(SUMMARIZERS, 1))
def test_summaries_are_those_of_generate_with_the_checkpoints_settings(serve, reference, family):
    expected = [summarized(reference, family, text) for text in TEXTS]
    found = answer_of(serve(family).post("/summarize", json={"text": TEXTS, "recordid": 7}))
    assert found["summary"] == expected
    assert found["recordid"] == 7


@pytest.mark.parametrize("family", ["bart", "nllb", "pegasus"])
def test_prompts_of_completions_are_made_into_texts(serve, reference, family):
    client = serve(family)
    body = {"prompt": TEXTS[:3], "max_tokens": 12}
    found = answer_of(client.post("/v1/completions", json=body))
    assert [one["text"] for one in found["choices"]] == [
        reference(family, text, max_new_tokens=12) for text in TEXTS[:3]
    ]
    assert found["usage"]["completion_tokens"] <= 36
    ids = answer_of(client.post("/tokenize", json={"text": TEXTS[0], "add_special_tokens": True}))["tokens"]
    by_ids = answer_of(client.post("/v1/completions", json={"prompt": ids, "max_tokens": 12, "temperature": 0}))
    assert by_ids["choices"][0]["text"] == found["choices"][0]["text"]


@pytest.mark.parametrize(
    "changes",
    [
        {"num_beams": 1},
        {"num_beams": 3, "length_penalty": 0.5, "early_stopping": True, "max_new_tokens": 9},
        {"num_beams": 2, "min_new_tokens": 8, "max_new_tokens": 10, "no_repeat_ngram_size": 2},
        {"num_beams": 1, "repetition_penalty": 1.8, "max_new_tokens": 14},
    ],
)
def test_a_requests_own_settings_are_those_of_generate(serve, reference, changes):
    body = {"text": TEXTS[:3], **LANGUAGES["m2m100"], **changes}
    found = answer_of(serve("m2m100").post("/translate", json=body))
    expected = [reference("m2m100", text, LANGUAGES["m2m100"], **changes) for text in TEXTS[:3]]
    assert found["translation"] == expected


def test_mixed_requests_at_once_get_their_own_answers(serve, reference):
    client = serve("m2m100")
    languages = [{"src_lang": "en", "tgt_lang": tgt} for tgt in ("fr", "de", "ru")]

    def ask(index):
        text, one, beams = TEXTS[index % len(TEXTS)], languages[index % 3], 1 + index % 2 * 2
        found = answer_of(client.post("/translate", json={"text": text, **one, "num_beams": beams}))
        return found["translation"], reference_of[text, one["tgt_lang"], beams]

    reference_of = {
        (text, one["tgt_lang"], beams): reference("m2m100", text, one, num_beams=beams)
        for text in TEXTS
        for one in languages
        for beams in (1, 3)
    }
    with ThreadPoolExecutor(8) as threads:
        for found, expected in threads.map(ask, range(30)):
            assert found == expected


def test_a_stream_with_one_beam_comes_token_by_token_and_is_the_whole_answer(serve):
    client, body = serve("t5"), {"text": TEXTS[2], **GREEDY}
    whole = answer_of(client.post("/translate", json=body))
    events = events_of(client.post("/translate", json={**body, "stream": True}))
    assert "".join(one["translation"] for one in events) == whole["translation"]
    assert len(events) > 3
    assert events[-1]["finish_reason"] == whole["finish_reason"]
    beams = events_of(client.post("/translate", json={**body, "stream": True, "num_beams": 2}))
    assert len(beams) == 2


def test_several_texts_can_be_streamed_and_are_told_apart(serve):
    client, body = serve("t5"), {"text": TEXTS[:2], **GREEDY}
    whole = answer_of(client.post("/translate", json=body))["translation"]
    events = events_of(client.post("/translate", json={**body, "stream": True}))
    found = ["".join(one["translation"] for one in events[:-1] if one["index"] == at) for at in (0, 1)]
    assert found == whole


def events_of(response):
    assert response.status_code == 200, response.get_data(as_text=True)
    lines = [line.removeprefix("data: ") for line in response.get_data(as_text=True).split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1] if not line.startswith(":")]


def test_drawn_texts_are_the_same_for_the_same_seed_whatever_runs_beside_them(serve):
    client = serve("t5")
    body = {"text": TEXTS[0], **GREEDY, "temperature": 1.5, "seed": 3}
    alone = answer_of(client.post("/translate", json=body))["translation"]
    with ThreadPoolExecutor(6) as threads:
        bodies = [body, *({**body, "text": text, "seed": 9} for text in TEXTS)]
        found = list(threads.map(lambda one: answer_of(client.post("/translate", json=one))["translation"], bodies))
    assert found[0] == alone
    assert answer_of(client.post("/translate", json={**body, "seed": 4}))["translation"] != alone


def test_stop_strings_end_a_text(serve):
    client, body = serve("t5"), {"text": TEXTS[0], **GREEDY}
    whole = answer_of(client.post("/translate", json=body))["translation"]
    stop = whole[len(whole) // 2 :][:2]
    cut = answer_of(client.post("/translate", json={**body, "stop": stop}))
    assert cut["translation"] == whole[: whole.index(stop)]
    assert cut["finish_reason"] == "stop"


@pytest.mark.parametrize("beams", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_a_deadline_counts_at_every_token_and_others_in_the_batch_go_on(serve, reference, monkeypatch, beams):
    client, world = serve("nllb"), serve.worlds["nllb", 8]
    model = world.inference.handles[0].model.checkpoint.model
    plain = type(model).forward

    def slow(self, *args, **kwargs):
        time.sleep(0.1)
        return plain(self, *args, **kwargs)

    body = {"text": TEXTS[0], **LANGUAGES["nllb"], "num_beams": beams}
    expected = reference("nllb", TEXTS[0], LANGUAGES["nllb"], num_beams=beams)
    monkeypatch.setattr(type(model), "forward", slow)
    with ThreadPoolExecutor(2) as threads:
        late = threads.submit(client.post, "/translate", json=body, headers={"X-Request-Timeout-S": "0.6"})
        other = threads.submit(client.post, "/translate", json=body)
        assert_envelope(late.result(), 504, "request_timeout")
        assert answer_of(other.result())["translation"] == expected
    wait_until(lambda: world.num_places() == 0)


@pytest.mark.parametrize(
    ("family", "path", "body", "param", "code"),
    [
        ("nllb", "/translate", {"text": "a", "src_lang": "xx", "tgt_lang": "deu_Latn"}, "src_lang", None),
        ("nllb", "/translate", {"text": "a", "src_lang": "deu_Latn", "tgt_lang": "de"}, "tgt_lang", None),
        ("nllb", "/translate", {"text": "a", "src_lang": "deu_Latn"}, "tgt_lang", None),
        ("t5", "/translate", {"text": "a", "tgt_lang": "fr"}, "src_lang", None),
        ("t5", "/translate", {"text": "a", "src_lang": "en", "tgt_lang": "ro"}, "tgt_lang", None),
        ("marian", "/translate", {"text": "a", "tgt_lang": "ita"}, "tgt_lang", None),
        ("bart", "/translate", {"text": "a", "tgt_lang": "de"}, "tgt_lang", "unsupported_parameter"),
        ("bart", "/summarize", {"text": "word " * 200}, "text", "context_length_exceeded"),
        ("bart", "/summarize", {"text": ["a", "word " * 9000]}, "text", "context_length_exceeded"),
        ("bart", "/summarize", {"text": ""}, "text", None),
        ("bart", "/summarize", {"text": ["a"] * 65}, "text", None),
        ("bart", "/summarize", {"text": "a", "num_beams": 17}, "num_beams", None),
        ("bart", "/summarize", {"text": "a", "num_beams": 2, "temperature": 1}, "num_beams", None),
        ("bart", "/summarize", {"text": "a", "temperature": 1, "do_sample": False}, "temperature", None),
        ("bart", "/summarize", {"text": "a", "min_new_tokens": 30, "max_new_tokens": 9}, "min_new_tokens", None),
        ("bart", "/summarize", {"text": "a", "tgt_lang": "de"}, "tgt_lang", "unsupported_parameter"),
        ("bart", "/v1/completions", {"prompt": "a", "suffix": "b"}, "suffix", "unsupported_parameter"),
        ("bart", "/v1/completions", {"prompt": "a", "echo": True}, "echo", "unsupported_parameter"),
        ("bart", "/v1/completions", {"prompt": "a", "logprobs": 2}, "logprobs", "unsupported_parameter"),
        ("bart", "/v1/completions", {"prompt": "a", "regex": "b+"}, "regex", "unsupported_parameter"),
        ("bart", "/v1/completions", {"prompt": [9999]}, "prompt", None),
        ("bart", "/v1/completions", {"prompt": "word " * 200}, "prompt", "context_length_exceeded"),
    ],
)
def test_bad_fields_are_refused_by_name_and_the_next_request_works(serve, family, path, body, param, code):
    client = serve(family)
    assert_envelope(client.post(path, json=body), 400, code or "invalid_parameter", param)
    assert answer_of(client.post("/v1/completions", json={"prompt": "a", "max_tokens": 3}))


def test_more_texts_than_places_are_refused_by_name(model_folder):
    world = RealWorld(model_folder("bart"), max_queue=2)
    refused = world.client().post("/summarize", json={"text": ["a"] * 4})
    assert "MAX_QUEUE" in assert_envelope(refused, 400, "invalid_parameter", "text")["message"]
    world.stop()


def test_a_long_text_is_cut_only_where_that_is_asked(serve, reference, model_folder):
    long = "the model of a folder " * 40
    found = answer_of(serve("bart").post("/summarize", json={"text": long, "truncate": True}))
    tokenizer = AutoTokenizer.from_pretrained(model_folder("bart"))
    cut = tokenizer(long, truncation=True, max_length=96)["input_ids"]
    by_ids = answer_of(serve("bart").post("/v1/completions", json={"prompt": cut, "max_tokens": 21}))
    assert found["summary"] == by_ids["choices"][0]["text"]


def test_each_model_says_what_it_does_not_do(serve):
    refused = serve("bart").post("/complete", json={"prompt": "a"})
    message = assert_envelope(refused, 400, "unsupported_parameter")["message"]
    assert message == "the model bart does not generate text: its task is seq2seq"


def test_capabilities_name_the_task_and_its_routes(serve):
    [model] = serve("m2m100").get("/v1/capabilities").get_json()["data"]
    assert (model["task"], model["engine"], model["dropped"]) == ("seq2seq", "batched", [])
    assert set(model["routes"]) == {"/translate", "/summarize", "/v1/completions"}
    assert "tgt_lang" in model["routes"]["/translate"]
