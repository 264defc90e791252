"""``/classify`` and ``/rerank`` on the real engine: what transformers says, in our form and in those of peers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from tests.contract.reading import assert_envelope
from tests.contract.real import RealWorld
from tests.contract.text_tasks import answer_of, assert_near, serve

__all__ = ["serve"]
FAMILIES = ("bert", "roberta", "modernbert", "qwen2")
TEXTS = ["def load(folder):", "a", "the tokenizer of a model with random weights " * 2, "naïve 日本語 🎉", "return x"]
QUERY = "def load(folder)"


@pytest.fixture(scope="module")
def reference(model_folder):
    """transformers' text classification of one model."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = pipeline("text-classification", model=str(model_folder(name)))
        return made[name]

    return of


@pytest.mark.parametrize("family", FAMILIES)
def test_texts_get_the_labels_that_the_pipeline_gives_them_alone_and_together(serve, reference, family):
    client, expected = serve(f"{family}-classify"), reference(f"{family}-classify")
    for text in TEXTS:
        assert_near(answer_of(client.post("/classify", json={"text": text})), expected(text, top_k=1))
    together = answer_of(client.post("/classify", json={"text": TEXTS, "top_k": 3}))
    assert_near(together, [expected(text, top_k=3) for text in TEXTS])


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_scores_are_made_of_logits_as_is_asked(serve, reference, activation):
    body = {"text": TEXTS[0], "top_k": 9, "function_to_apply": activation}
    expected = reference("bert-classify")(TEXTS[0], top_k=None, function_to_apply=activation)
    assert_near(answer_of(serve("bert-classify").post("/classify", json=body)), expected)


@pytest.mark.parametrize("problem", ["regression", "multi_label_classification", "single_label_classification"])
def test_the_config_says_how_scores_are_made(model_folder, tmp_path, problem):
    for path in model_folder("bert-classify").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"problem_type": problem}
    (tmp_path / "config.json").write_text(json.dumps(config))
    world = RealWorld(tmp_path)
    found = answer_of(world.client().post("/classify", json={"text": TEXTS[0], "top_k": 9}))
    assert_near(found, pipeline("text-classification", model=str(tmp_path))(TEXTS[0], top_k=None))
    world.stop()


@pytest.mark.parametrize("labels", [{"bad": "x", "good": "y"}, {}, {"bad": None}])
def test_labels_whose_numbers_the_config_does_not_tell_are_those_of_its_other_table(model_folder, tmp_path, labels):
    for path in model_folder("bert-classify").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text()) | {"label2id": labels}
    (tmp_path / "config.json").write_text(json.dumps(config))
    world = RealWorld(tmp_path)
    [found] = answer_of(world.client().post("/classify", json={"input": ["a"]}))["data"]
    assert (found["label"] in ("bad", "fair", "good"), found["num_classes"]) == (True, 3)
    world.stop()


@pytest.mark.parametrize("name", ["bert-rerank", "bert-zero-shot", "roberta-zero-shot"])
def test_every_classifier_of_texts_classifies_pairs_too(serve, reference, name):
    found = answer_of(serve(name).post("/classify", json={"text": "a b", "text_pair": "c", "top_k": 9}))
    assert_near(found, reference(name)({"text": "a b", "text_pair": "c"}, top_k=None))
    lists = {"text": ["a b", "x"], "text_pair": ["c", "def"]}
    assert_near(
        answer_of(serve(name).post("/classify", json=lists)),
        [reference(name)({"text": one, "text_pair": two}, top_k=1) for one, two in zip(*lists.values(), strict=True)],
    )


def plain_logits(folder, query, texts):
    """What the model itself says of each pair, alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        return [float(model(**tokenizer(query, text, return_tensors="pt")).logits[0, 0]) for text in texts]


@pytest.mark.parametrize("family", FAMILIES)
def test_documents_are_ranked_by_the_scores_of_a_plain_forward_pass(serve, model_folder, family):
    logits = plain_logits(model_folder(f"{family}-rerank"), QUERY, TEXTS)
    order = sorted(range(len(TEXTS)), key=lambda index: logits[index], reverse=True)
    body = {"query": QUERY, "documents": TEXTS, "return_documents": True}
    client = serve(f"{family}-rerank")
    found = answer_of(client.post("/rerank", json=body))
    scores = torch.tensor(logits).sigmoid().tolist()
    assert_near(
        found["results"],
        [{"index": at, "relevance_score": scores[at], "document": {"text": TEXTS[at]}} for at in order],
    )
    assert set(found) == {"results", "usage", "timings", "model", "request_id"}
    raw = answer_of(client.post("/rerank", json={**body, "raw_scores": True, "return_documents": False, "top_n": 2}))
    assert_near(raw["results"], [{"index": at, "relevance_score": logits[at]} for at in order[:2]])
    [alone] = answer_of(client.post("/rerank", json={"query": QUERY, "documents": TEXTS[:1]}))["results"]
    assert_near(alone["relevance_score"], scores[0])


def test_sixty_four_documents_of_unlike_lengths_score_as_each_alone(serve, model_folder):
    documents = [" ".join(["model"] * (1 + index % 40)) for index in range(64)]
    logits = plain_logits(model_folder("bert-rerank"), "a", documents)
    pairs = answer_of(serve("bert-rerank").post("/score", json={"text_1": "a", "text_2": documents}))
    assert_near([one["score"] for one in pairs["data"]], torch.tensor(logits).sigmoid().tolist())


def test_mixed_requests_at_once_get_their_own_answers(serve, reference, model_folder):
    client, labels = serve("bert-rerank"), reference("bert-rerank")
    scores = torch.tensor(plain_logits(model_folder("bert-rerank"), QUERY, TEXTS)).sigmoid().tolist()

    def ask(index):
        if index % 2:
            found = answer_of(client.post("/classify", json={"text": TEXTS[index % len(TEXTS)]}))
            return found, labels(TEXTS[index % len(TEXTS)], top_k=1)
        found = answer_of(client.post("/v1/score", json={"text_1": QUERY, "text_2": TEXTS}))
        return [one["score"] for one in found["data"]], scores

    with ThreadPoolExecutor(8) as threads:
        for found, expected in threads.map(ask, range(40)):
            assert_near(found, expected)


def test_vllms_clients_get_the_probabilities_of_all_labels(serve, reference):
    client, expected = serve("bert-classify"), reference("bert-classify")
    body = answer_of(client.post("/classify", json={"input": TEXTS, "model": "tiny-bert-classify"}))
    assert (body["object"], body["model"]) == ("list", "tiny-bert-classify")
    for one, text in zip(body["data"], TEXTS, strict=True):
        by_label = {each["label"]: each["score"] for each in expected(text, top_k=None)}
        assert_near(one["probs"], [by_label[name] for name in ("bad", "fair", "good")])
        assert (one["label"], one["num_classes"]) == (max(by_label, key=by_label.get), 3)
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 0


def test_vllms_scores_go_pair_by_pair_or_one_to_many(serve, model_folder):
    client = serve("bert-rerank")
    two = answer_of(client.post("/v1/score", json={"text_1": TEXTS[:2], "text_2": TEXTS[2:4]}))["data"]
    expected = [plain_logits(model_folder("bert-rerank"), TEXTS[at], [TEXTS[at + 2]])[0] for at in (0, 1)]
    assert_near([one["score"] for one in two], torch.tensor(expected).sigmoid().tolist())
    raw = answer_of(client.post("/v1/score", json={"text_1": "a", "text_2": "b", "use_activation": False}))["data"]
    assert_near(raw[0]["score"], plain_logits(model_folder("bert-rerank"), "a", ["b"])[0])
    uneven = client.post("/v1/score", json={"text_1": ["a", "b"], "text_2": ["a", "b", "c"]})
    assert_envelope(uneven, 400, "invalid_parameter", "text_2")


@pytest.mark.parametrize(("path", "version"), [("/v1/rerank", "1"), ("/v2/rerank", "2")])
def test_the_clients_of_cohere_and_jina_read_their_fields(serve, path, version):
    client = serve("bert-rerank")
    own = answer_of(client.post("/rerank", json={"query": QUERY, "documents": TEXTS}))["results"]
    documents = [{"text": TEXTS[0]}, *TEXTS[1:]]
    body = {"model": "tiny-bert-rerank", "query": QUERY, "documents": documents, "top_n": 3, "return_documents": True}
    found = answer_of(client.post(path, json=body))
    assert [one["index"] for one in found["results"]] == [one["index"] for one in own[:3]]
    assert all(one["document"]["text"] == TEXTS[one["index"]] for one in found["results"])
    assert (found["meta"]["api_version"]["version"], found["object"]) == (version, "list")
    assert found["usage"]["total_tokens"] > 0


def test_text_embeddings_inferences_clients_get_a_bare_list(serve):
    client = serve("bert-rerank")
    own = answer_of(client.post("/rerank", json={"query": QUERY, "documents": TEXTS, "raw_scores": True}))["results"]
    body = {"query": QUERY, "texts": TEXTS, "raw_scores": True, "return_text": True, "truncation_direction": "Right"}
    found = answer_of(client.post("/rerank", json=body))
    expected = [{"index": one["index"], "score": one["relevance_score"], "text": TEXTS[one["index"]]} for one in own]
    assert_near(found, expected)


LONG = "model " * 80


def test_a_long_text_is_refused_by_name_and_cut_only_where_that_is_asked(serve, reference):
    client = serve("bert-classify")
    assert_envelope(client.post("/classify", json={"text": ["a", LONG]}), 400, "context_length_exceeded", "text")
    cut = answer_of(client.post("/classify", json={"text": LONG, "truncate": True}))
    assert_near(cut, reference("bert-classify")(LONG, top_k=1, truncation=True))
    marked = "load " + LONG + "folder"
    sides = [
        answer_of(client.post("/classify", json={"text": marked, "truncate": True, "truncation_direction": side}))
        for side in ("left", "right")
    ]
    assert sides[0] != sides[1]
    huge = answer_of(client.post("/classify", json={"text": LONG * 2000, "truncate": True}))
    assert_near(huge, cut)
    vllm = answer_of(client.post("/classify", json={"input": LONG, "truncate_prompt_tokens": 5}))
    assert vllm["usage"]["prompt_tokens"] == 5
    assert answer_of(client.post("/classify", json={"text": "a"}))


def test_a_pair_is_cut_where_that_is_asked_and_refused_with_its_field_else(serve):
    client = serve("bert-rerank")
    refused = client.post("/rerank", json={"query": "a", "documents": ["b", LONG]})
    assert_envelope(refused, 400, "context_length_exceeded", "documents")
    refused = client.post("/rerank", json={"query": LONG, "documents": ["b"]})
    assert_envelope(refused, 400, "context_length_exceeded", "query")
    for texts, param in (((LONG, "b"), "text_1"), (("a", LONG), "text_2")):
        refused = client.post("/score", json=dict(zip(("text_1", "text_2"), texts, strict=True)))
        assert_envelope(refused, 400, "context_length_exceeded", param)
    assert answer_of(client.post("/rerank", json={"query": LONG, "documents": ["b", LONG], "truncate": True}))
    assert answer_of(client.post("/v1/rerank", json={"query": "a", "documents": [LONG], "truncation": True}))
    cut = answer_of(client.post("/v2/rerank", json={"query": "a", "documents": [LONG], "max_tokens_per_doc": 4}))
    assert cut["usage"]["prompt_tokens"] == 8


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/classify", {}, "text"),
        ("/classify", {"text": ""}, "text"),
        ("/classify", {"text": []}, "text"),
        ("/classify", {"text": ["a"] * 257}, "text"),
        ("/classify", {"text": "a", "top_k": 0}, "top_k"),
        ("/classify", {"text": "a", "text_pair": ["b"]}, "text_pair"),
        ("/classify", {"text": ["a", "b"], "text_pair": ["b"]}, "text_pair"),
        ("/classify", {"text": "a", "function_to_apply": "relu"}, "function_to_apply"),
        ("/rerank", {"query": "a"}, "documents"),
        ("/rerank", {"documents": ["a"]}, "query"),
        ("/rerank", {"query": "a", "documents": []}, "documents"),
        ("/rerank", {"query": "a", "documents": ["b"] * 10_000}, "documents"),
        ("/rerank", {"query": "a", "documents": ["b"], "top_n": 0}, "top_n"),
        ("/v1/score", {"text_1": "a"}, "text_2"),
    ],
)
def test_bad_fields_are_refused_by_name_and_the_next_request_works(serve, path, body, param):
    client = serve("bert-rerank")
    assert_envelope(client.post(path, json=body), 400, "invalid_parameter", param)
    assert answer_of(client.post("/rerank", json={"query": "a", "documents": ["b"]}))


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/classify", {"text": "a", "input": "b"}, "input"),
        ("/classify", {"input": "a", "softmax": True}, "softmax"),
        ("/rerank", {"query": "a", "documents": ["b"], "texts": ["b"]}, "texts"),
        ("/score", {"text_1": "a", "text_2": "b", "priority": 1}, "priority"),
    ],
)
def test_a_parameter_of_another_form_is_refused_by_name(serve, path, body, param):
    assert_envelope(serve("bert-rerank").post(path, json=body), 400, "unsupported_parameter", param)


def test_a_body_that_fits_no_form_is_told_which_there_are(serve):
    message = assert_envelope(serve("bert-rerank").post("/rerank", json={}), 400, "invalid_parameter", "documents")
    assert "documents (Forklift), texts (text-embeddings-inference)" in message["message"]


def test_failures_have_the_form_that_the_callers_of_a_route_read(serve):
    client = serve("bert-rerank")
    cohere = client.post("/v2/rerank", json={"query": "a", "documents": ["b"], "rank_fields": ["x"]})
    assert cohere.status_code == 400
    assert set(cohere.get_json()) == {"id", "message"}
    assert "rank_fields" in cohere.get_json()["message"]
    assert cohere.get_json()["id"] == cohere.headers["X-Request-Id"]
    tei = client.post("/rerank", json={"query": "a", "texts": [""]})
    assert (tei.status_code, tei.get_json()["error_type"]) == (400, "Validation")
    assert "texts" in tei.get_json()["error"]


def test_a_missing_key_is_told_in_the_form_of_the_route(model_folder):
    world = RealWorld(model_folder("bert-rerank"), api_keys="k")
    response = world.client().post("/v1/rerank", json={"query": "a", "documents": ["b"]})
    assert (response.status_code, set(response.get_json())) == (401, {"id", "message"})
    world.stop()


def test_each_model_says_what_it_does_not_do(serve):
    refused = serve("bert-classify").post("/rerank", json={"query": "a", "documents": ["b"]})
    message = assert_envelope(refused, 400, "unsupported_parameter")["message"]
    assert message == "the model tiny-bert-classify does not score pairs of texts: its task is classify"


def test_the_capabilities_of_each_task_are_told(serve):
    for name, routes in {
        "bert-classify": {"/classify"},
        "bert-rerank": {"/classify", "/rerank", "/v1/rerank", "/v2/rerank", "/score", "/v1/score"},
    }.items():
        [model] = serve(name).get("/v1/capabilities").get_json()["data"]
        assert (model["task"], model["engine"]) == (name.partition("-")[2], "encoder")
        assert routes <= set(model["routes"])
        assert "/complete" not in model["routes"]


def test_text_embeddings_inferences_predictions_are_all_labels_best_first(serve, reference):
    client, expected = serve("bert-classify"), reference("bert-classify")
    [first, second] = TEXTS[:2]
    assert_near(answer_of(client.post("/predict", json={"inputs": first})), expected(first, top_k=None))
    pair = expected({"text": first, "text_pair": second}, top_k=None)
    assert_near(answer_of(client.post("/predict", json={"inputs": [first, second]})), pair)
    batch = answer_of(client.post("/predict", json={"inputs": [[first], [first, second]]}))
    assert_near(batch, [expected(first, top_k=None), pair])
    raw = answer_of(client.post("/predict", json={"inputs": [first], "raw_scores": True}))
    assert_near(raw, expected(first, top_k=None, function_to_apply="none"))
    for inputs in ("", [], ["a", "b", "c"], [["a", "b", "c"]], ["a", ["b"]]):
        refused = client.post("/predict", json={"inputs": inputs})
        assert (refused.status_code, refused.get_json()["error_type"]) == (400, "Validation")
        assert refused.get_json()["error"].startswith("inputs")


@pytest.mark.parametrize(("task", "kind"), [("classify", "classifier"), ("rerank", "reranker")])
def test_information_on_a_classifier_names_its_labels(serve, task, kind):
    told = answer_of(serve(f"bert-{task}").get("/info"))
    names = {"classify": ["bad", "fair", "good"], "rerank": ["LABEL_0"]}[task]
    labels = {str(index): name for index, name in enumerate(names)}
    expected = {"id2label": labels, "label2id": {name: int(index) for index, name in labels.items()}}
    assert told["model_type"] == {kind: expected}
    assert (told["max_input_length"], told["model_dtype"]) == (64, "float32")


def test_what_would_leave_nothing_of_a_text_is_refused(serve):
    body = {"text_1": "a", "text_2": ["b"], "truncate_prompt_tokens": 1}
    for most in (0, 1):
        refused = serve("bert-rerank").post("/score", json={**body, "truncate_prompt_tokens": most})
        assert_envelope(refused, 400, "invalid_parameter", "truncate_prompt_tokens")
    assert answer_of(serve("bert-rerank").post("/score", json={**body, "truncate_prompt_tokens": -1}))
