"""``/entities``, ``/zero-shot`` and ``/answer`` on the real engine: what transformers says of the same texts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from transformers import AutoModelForQuestionAnswering, AutoTokenizer, pipeline

from tests.contract.reading import assert_envelope
from tests.contract.text_tasks import answer_of, assert_near, serve

__all__ = ["serve"]
FAMILIES = ("bert", "roberta", "modernbert")
TEXTS = [
    "def load(folder): return model",
    "a",
    "日本 and 🎉 emoji 👩‍👧, naïve",
    "the tokenizer of a model. " * 2,
    "🎉",
]
STRATEGIES = ["none", "simple", "first", "average", "max"]
pytestmark = pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")


@pytest.fixture(scope="module")
def pipelines(model_folder):
    """transformers' pipelines by model."""
    made = {}

    def of(name):
        if name not in made:
            kind = "token-classification" if name.endswith("entities") else "zero-shot-classification"
            made[name] = pipeline(kind, model=str(model_folder(name)))
        return made[name]

    return of


def plain(value):
    """numpy's numbers as Python's."""
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_entities_are_those_of_the_pipeline_alone_and_together(serve, pipelines, family, strategy):
    client, expected = serve(f"{family}-entities"), pipelines(f"{family}-entities")
    options = {"aggregation_strategy": strategy}
    each = [plain(expected(text, **options)) for text in TEXTS]
    for text, one in zip(TEXTS, each, strict=True):
        assert_near(answer_of(client.post("/entities", json={"text": text, **options})), one)
    assert_near(answer_of(client.post("/entities", json={"text": TEXTS, **options})), each)


def test_labels_are_ignored_as_is_asked(serve, pipelines):
    options = {"aggregation_strategy": "simple", "ignore_labels": ["PER"]}
    expected = plain(pipelines("bert-entities")(TEXTS[0], **options))
    assert_near(answer_of(serve("bert-entities").post("/entities", json={"text": TEXTS[0], **options})), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_places_are_characters_of_the_text_also_behind_emoji(serve, family):
    text = "🎉🎊 日本 load 👩‍👩‍👧 model"
    body = {"text": text, "ignore_labels": []}
    found = answer_of(serve(f"{family}-entities").post("/entities", json=body))
    assert found[-1]["end"] == len(text)
    shown = "".join(text[one["start"] : one["end"]] for one in found)
    assert "load" in shown.replace(" ", "") and shown.replace(" ", "").endswith("model")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("stride", [0, 8])
def test_a_long_text_is_read_in_parts_where_a_stride_is_given(serve, pipelines, family, stride):
    text = "def load(folder): return model 🎉 naïve. " * 8
    client = serve(f"{family}-entities")
    assert_envelope(client.post("/entities", json={"text": text}), 400, "context_length_exceeded", "text")
    options = {"aggregation_strategy": "simple", "stride": stride}
    expected = plain(pipelines(f"{family}-entities")(text, **options))
    assert_near(answer_of(client.post("/entities", json={"text": [text, "a"], **options}))[0], expected)


ZERO_SHOT = [
    {},
    {"multi_label": True},
    {"hypothesis_template": "It is {}!", "candidate_labels": "load, model , return"},
    {"candidate_labels": ["only"]},
]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", ZERO_SHOT)
def test_labels_of_the_request_score_as_in_the_pipeline(serve, pipelines, family, options):
    options = {"candidate_labels": ["load", "a model", "🎉"], **options}
    client, expected = serve(f"{family}-zero-shot"), pipelines(f"{family}-zero-shot")
    each = [expected(text, **options) for text in TEXTS]
    assert_near(answer_of(client.post("/zero-shot", json={"text": TEXTS[0], **options})), each[0])
    assert_near(answer_of(client.post("/zero-shot", json={"text": TEXTS, **options})), each)


def test_a_long_text_is_cut_and_its_label_is_not(serve, pipelines):
    client, text = serve("bert-zero-shot"), "model " * 80
    body = {"text": text, "candidate_labels": ["load", "model"]}
    assert_envelope(client.post("/zero-shot", json=body), 400, "context_length_exceeded", "text")
    expected = pipelines("bert-zero-shot")(text, candidate_labels=["load", "model"])
    assert_near(answer_of(client.post("/zero-shot", json={**body, "truncate": True})), expected)


CONTEXT = "The model loads from a folder. 🎉 日本語! def load(folder): return tokenizer, naïve model " * 3
QUESTION = "what loads?"


def answers_by_the_rule(folder, *, size, overlap, longest, top_k, may_be_none=False):
    """Every span of every window, by a plain forward pass of each window alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    windows = tokenizer(
        QUESTION,
        CONTEXT,
        truncation="only_second",
        max_length=size,
        stride=overlap,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    best, nothing = {}, []
    for at, ids in enumerate(windows["input_ids"]):
        given = {"input_ids": torch.tensor([ids])}
        if "token_type_ids" in windows:
            given["token_type_ids"] = torch.tensor([windows["token_type_ids"][at]])
        with torch.inference_mode():
            output = model(**given)
        segments, spans = windows.sequence_ids(at), windows["offset_mapping"][at]
        possible = torch.tensor([one == 1 for one in segments])
        possible[0] = True
        both = (output.start_logits[0], output.end_logits[0])
        start, end = (logits.masked_fill(~possible, -torch.inf).softmax(-1) for logits in both)
        nothing.append(float(start[0] * end[0]))
        for first in range(len(ids)):
            for last in range(first, min(first + longest, len(ids))):
                if segments[first] == 1 and segments[last] == 1:
                    place = (spans[first][0], spans[last][1])
                    best[place] = max(best.get(place, 0.0), float(start[first] * end[last]))
    found = [{"score": score, "start": a, "end": b, "answer": CONTEXT[a:b]} for (a, b), score in best.items()]
    if may_be_none:
        found.append({"score": min(nothing), "start": 0, "end": 0, "answer": ""})
    return sorted(found, key=lambda one: one["score"], reverse=True)[:top_k]


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_follow_the_rule_over_windows_of_a_long_context(serve, model_folder, family):
    client, folder = serve(f"{family}-answer"), model_folder(f"{family}-answer")
    body = {"question": QUESTION, "context": CONTEXT, "top_k": 5, "max_answer_len": 4}
    parts = {"max_seq_len": 40, "doc_stride": 10}
    expected = answers_by_the_rule(folder, size=40, overlap=10, longest=4, top_k=5)
    assert_near(answer_of(client.post("/answer", json={**body, **parts})), expected)
    assert_near(answer_of(client.post("/answer", json={**body, **parts, "top_k": 1})), expected[0])
    impossible = answers_by_the_rule(folder, size=40, overlap=10, longest=4, top_k=100, may_be_none=True)
    found = answer_of(client.post("/answer", json={**body, **parts, "top_k": 100, "handle_impossible_answer": True}))
    assert_near([one["score"] for one in found], [one["score"] for one in impossible])
    assert [one["answer"] == "" for one in found] == [one["answer"] == "" for one in impossible]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_long_context_needs_no_options(serve, family):
    found = answer_of(serve(f"{family}-answer").post("/answer", json={"question": QUESTION, "context": CONTEXT * 5}))
    assert (CONTEXT * 5)[found["start"] : found["end"]] == found["answer"] != ""


def test_requests_at_once_get_their_own_answers(serve, pipelines):
    client, expected = serve("bert-entities"), pipelines("bert-entities")
    each = [plain(expected(text)) for text in TEXTS]

    def ask(index):
        if index % 3:
            return answer_of(client.post("/entities", json={"text": TEXTS[index % 5]})), each[index % 5]
        return answer_of(client.post("/entities", json={"text": TEXTS})), each

    with ThreadPoolExecutor(8) as threads:
        for found, wanted in threads.map(ask, range(30)):
            assert_near(found, wanted)


BAD = [
    ("entities", "/entities", {}, "text"),
    ("entities", "/entities", {"text": "a", "aggregation_strategy": "best"}, "aggregation_strategy"),
    ("entities", "/entities", {"text": "a", "stride": 1}, "stride"),
    ("entities", "/entities", {"text": "a", "stride": 62, "aggregation_strategy": "simple"}, "stride"),
    ("zero-shot", "/zero-shot", {"text": "a"}, "candidate_labels"),
    ("zero-shot", "/zero-shot", {"text": "a", "candidate_labels": []}, "candidate_labels"),
    ("zero-shot", "/zero-shot", {"text": "a", "candidate_labels": " , "}, "candidate_labels"),
    ("zero-shot", "/zero-shot", {"text": "a", "candidate_labels": [""]}, "candidate_labels"),
    ("zero-shot", "/zero-shot", {"text": ["a"] * 256, "candidate_labels": ["b"] * 4}, "candidate_labels"),
    (
        "zero-shot",
        "/zero-shot",
        {"text": "a", "candidate_labels": ["b"], "hypothesis_template": "{0}"},
        "hypothesis_template",
    ),
    ("answer", "/answer", {"question": "a"}, "context"),
    ("answer", "/answer", {"question": "a", "context": ""}, "context"),
    ("answer", "/answer", {"question": "a", "context": " \n"}, "context"),
    ("answer", "/answer", {"context": "a"}, "question"),
    ("answer", "/answer", {"question": "a", "context": "b", "top_k": 0}, "top_k"),
    ("answer", "/answer", {"question": "a", "context": "b", "doc_stride": 63}, "doc_stride"),
]
GOOD = {
    "/entities": {"text": "a"},
    "/zero-shot": {"text": "a", "candidate_labels": ["b"]},
    "/answer": {"question": "a", "context": "b"},
}


@pytest.mark.parametrize(("task", "path", "body", "param"), BAD)
def test_bad_fields_are_refused_by_name_and_the_next_request_works(serve, task, path, body, param):
    client = serve(f"bert-{task}")
    assert_envelope(client.post(path, json=body), 400, "invalid_parameter", param)
    assert answer_of(client.post(path, json=GOOD[path])) is not None


LONG = "model " * 80


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/zero-shot", {"text": "a", "candidate_labels": [LONG]}, "candidate_labels"),
        ("/answer", {"question": LONG, "context": "b"}, "question"),
        ("/answer", {"question": "a", "context": "model " * 20_000}, "context"),
    ],
)
def test_what_is_too_long_is_refused_by_name(serve, path, body, param):
    response = serve(f"bert-{path[1:]}").post(path, json=body)
    assert_envelope(response, 400, "context_length_exceeded", param)


def test_a_template_is_not_a_program(serve):
    template = "{} {0.__class__} {:>1000000000}"
    body = {"text": "a", "candidate_labels": ["b"], "hypothesis_template": template}
    assert answer_of(serve("bert-zero-shot").post("/zero-shot", json=body))["labels"] == ["b"]
