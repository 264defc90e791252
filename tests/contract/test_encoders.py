"""``/fill-mask``, ``/v1/embeddings`` and the plain text form of ``/``, on the real engine."""

from __future__ import annotations

import base64
import json
import shutil
import struct

import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoModel, AutoTokenizer, pipeline

from app.models.encoders.encoder_model import EncoderModel
from tests.contract.reading import assert_envelope
from tests.contract.real import RealWorld
from tests.proposals import assert_proposals
from tests.tiny_models import write_sentence_files

TEXTS = ["def [MASK](x):", "a [MASK] b [MASK] c", "return [MASK]"]


@pytest.fixture(scope="module")
def bert_world(model_folder):
    world = RealWorld(model_folder("bert"), model_name="tiny-bert")
    yield world
    world.stop()


@pytest.fixture(scope="module")
def sentence_world(model_folder):
    world = RealWorld(model_folder("sentence"), model_name="tiny-sentence")
    yield world
    world.stop()


@pytest.fixture
def bert(bert_world):
    return bert_world.client()


@pytest.fixture
def sentence(sentence_world):
    return sentence_world.client()


@pytest.fixture(scope="module")
def reference(model_folder):
    return pipeline("fill-mask", model=str(model_folder("bert")))


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_gets_what_the_pipeline_answers(bert, reference, text):
    response = bert.post("/fill-mask", json={"text": text, "top_k": 3})
    assert response.status_code == 200
    assert_proposals(response.get_json(), reference(text, top_k=3))


def test_several_texts_get_a_list_of_that(bert, reference):
    found = bert.post("/fill-mask", json={"text": TEXTS}).get_json()
    assert_proposals(found, [reference(text) for text in TEXTS])
    assert_proposals(bert.post("/fill-mask", json={"text": TEXTS[:1]}).get_json(), [reference(TEXTS[0])])


def test_plain_text_with_a_mask_gets_the_list(bert, reference):
    response = bert.post("/", data="test [MASK]", content_type="text/plain")
    assert_proposals(response.get_json(), reference("test [MASK]"))


def test_a_text_without_mask_is_told_the_mask_token(bert):
    for response in (
        bert.post("/fill-mask", json={"text": ["[MASK]", "none"]}),
        bert.post("/", data="none", content_type="text/plain"),
    ):
        assert "[MASK]" in assert_envelope(response, 400, "invalid_parameter", "text")["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "text"),
        ({"text": ""}, "text"),
        ({"text": []}, "text"),
        ({"text": ["a", 1]}, "text"),
        ({"text": "[MASK]", "top_k": 0}, "top_k"),
        ({"text": "[MASK]", "top_k": 101}, "top_k"),
    ],
)
def test_bad_fields_are_refused_by_name(bert, body, param):
    assert_envelope(bert.post("/fill-mask", json=body), 400, "invalid_parameter", param)


def test_the_proposals_of_a_request_are_bounded(bert):
    response = bert.post("/fill-mask", json={"text": ["[MASK] " * 10] * 11, "top_k": 100})
    assert "11000 proposals" in assert_envelope(response, 400, "invalid_parameter", "top_k")["message"]


def test_a_text_over_the_context_is_refused_before_the_engine(bert, sentence):
    response = bert.post("/fill-mask", json={"text": "[MASK] " * 63})
    assert "65 tokens" in assert_envelope(response, 400, "context_length_exceeded", "text")["message"]
    assert_envelope(sentence.post("/v1/embeddings", json={"input": "a " * 39}), 400, "context_length_exceeded", "input")
    assert sentence.post("/v1/embeddings", json={"input": "a " * 38}).status_code == 200


def test_a_text_that_is_not_utf8_is_refused(bert):
    assert_envelope(bert.post("/", data=b"\xff [MASK]", content_type="text/plain"), 400, "bad_request")


def test_another_models_name_is_not_found(bert, sentence):
    body = {"text": "[MASK]", "model": "other"}
    assert_envelope(bert.post("/fill-mask", json=body), 404, "model_not_found", "model")
    assert bert.post("/fill-mask", json={**body, "model": "tiny-bert"}).status_code == 200
    assert_envelope(
        sentence.post("/v1/embeddings", json={"input": "a", "model": "other"}), 404, "model_not_found", "model"
    )


def test_embeddings_have_openais_form(sentence):
    response = sentence.post("/v1/embeddings", json={"input": ["def f", "a"], "model": "tiny-sentence", "user": "me"})
    body = response.get_json()
    assert set(body) == {"object", "data", "model", "usage"}
    assert (body["object"], body["model"]) == ("list", "tiny-sentence")
    assert [(one["object"], one["index"], len(one["embedding"])) for one in body["data"]] == [
        ("embedding", 0, 64),
        ("embedding", 1, 64),
    ]
    num_tokens = sum(sentence.post("/tokenize", json={"text": text}).get_json()["count"] for text in ("def f", "a"))
    assert body["usage"] == {"prompt_tokens": num_tokens, "total_tokens": num_tokens}
    assert torch.tensor(body["data"][0]["embedding"]).norm() == pytest.approx(1, abs=1e-5)
    assert all(float(response.headers[name]) >= 0 for name in ("X-Queue-Ms", "X-Total-Ms"))


def vectors(client, **body):
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.get_data(as_text=True)
    return [one["embedding"] for one in response.get_json()["data"]]


def test_token_ids_give_the_vector_of_their_text(sentence):
    ids = sentence.post("/tokenize", json={"text": "def f"}).get_json()["tokens"]
    [of_text] = vectors(sentence, input="def f")
    assert vectors(sentence, input=ids) == [of_text]
    both = torch.tensor(vectors(sentence, input=[ids, ids[:2]]))
    assert torch.allclose(both[0], torch.tensor(of_text), atol=1e-5)


def test_base64_is_little_endian_float32(sentence):
    [numbers] = vectors(sentence, input="def f")
    [packed] = vectors(sentence, input="def f", encoding_format="base64")
    assert list(struct.unpack("<64f", base64.b64decode(packed))) == numbers


def test_vectors_are_cut_and_normalised_again(sentence):
    [whole] = vectors(sentence, input="a")
    assert vectors(sentence, input="a", dimensions=64) == [whole]
    cut = torch.nn.functional.normalize(torch.tensor(whole[:32]), dim=0)
    [found] = vectors(sentence, input="a", dimensions=32)
    assert torch.allclose(torch.tensor(found), cut, atol=1e-5)
    response = sentence.post("/v1/embeddings", json={"input": "a", "dimensions": 65})
    assert "64" in assert_envelope(response, 400, "invalid_parameter", "dimensions")["message"]


@pytest.fixture(scope="module")
def prompted(model_folder, tmp_path_factory):
    """The same model with prompts of its own."""
    folder = tmp_path_factory.mktemp("prompted") / "model"
    shutil.copytree(model_folder("sentence"), folder)
    prompts = {"prompts": {"query": "def ", "document": "class "}, "default_prompt_name": "document"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    world = RealWorld(folder)
    yield world.client()
    world.stop()


def test_a_prompt_of_the_models_stands_before_each_text(prompted, sentence):
    both = torch.tensor(vectors(prompted, input=["f", "x y"], prompt_name="query"))
    assert torch.allclose(both, torch.tensor(vectors(sentence, input=["def f", "def x y"])), atol=1e-5)
    by_default = torch.tensor(vectors(prompted, input="f"))
    assert torch.allclose(by_default, torch.tensor(vectors(sentence, input="class f")), atol=1e-5)
    response = prompted.post("/v1/embeddings", json={"input": "f", "prompt_name": "passage"})
    message = assert_envelope(response, 400, "invalid_parameter", "prompt_name")["message"]
    assert message.endswith("has: document, query")
    response = prompted.post("/v1/embeddings", json={"input": [5, 6], "prompt_name": "query"})
    assert_envelope(response, 400, "invalid_parameter", "prompt_name")


def test_a_prompt_can_be_left_out_of_the_mean(model_folder, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(model_folder("sentence"), folder)
    write_sentence_files(folder, "mean_tokens")
    pooling = json.loads((folder / "1_Pooling" / "config.json").read_text()) | {"include_prompt": False}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": {"query": "def load "}}))
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    given = tokenizer("def load return x", return_tensors="pt")
    with torch.inference_mode():
        states = model(**given).last_hidden_state[0, len(tokenizer("def load ")["input_ids"]) - 1 :]
    world = RealWorld(folder)
    [found] = vectors(world.client(), input="return x", prompt_name="query")
    assert torch.allclose(torch.tensor(found), torch.nn.functional.normalize(states.mean(0), dim=0), atol=1e-5)
    assert vectors(world.client(), input="def load return x") != [found]
    world.stop()


def test_sentences_are_compared_by_the_cosine_of_their_vectors(sentence):
    source, *others = texts = ["def f", "a", "def f", "return x y"]
    rows = torch.tensor(vectors(sentence, input=texts))
    expected = torch.nn.functional.cosine_similarity(rows[:1], rows[1:]).tolist()
    body = {"inputs": {"source_sentence": source, "sentences": others}}
    assert sentence.post("/similarity", json=body).get_json() == pytest.approx(expected, abs=1e-5)
    for path in ("/score", "/v1/score"):
        scored = sentence.post(path, json={"text_1": source, "text_2": others}).get_json()
        assert [one["score"] for one in scored["data"]] == pytest.approx(expected, abs=1e-5)
    refused = sentence.post("/similarity", json={"inputs": {"source_sentence": "a", "sentences": []}})
    assert (refused.status_code, refused.get_json()["error_type"]) == (400, "Validation")
    assert "sentences" in refused.get_json()["error"]
    assert_envelope(
        sentence.post("/score", json={"text_1": "a", "text_2": "a " * 90}), 400, "context_length_exceeded", "text_2"
    )


def test_text_embeddings_inferences_clients_get_bare_vectors(sentence, model_folder):
    [one] = vectors(sentence, input="def f")
    response = sentence.post("/embed", json={"inputs": "def f", "truncate": False})
    assert torch.allclose(torch.tensor(response.get_json()), torch.tensor([one]), atol=1e-5)
    raw = sentence.post("/embed", json={"inputs": ["def f"], "normalize": False}).get_json()[0]
    assert torch.tensor(raw).norm() != pytest.approx(1, abs=1e-3)
    assert torch.allclose(torch.nn.functional.normalize(torch.tensor(raw), dim=0), torch.tensor(one), atol=1e-5)
    long = {"inputs": ["a " * 80, "b"]}
    refused = sentence.post("/embed", json=long)
    assert (refused.status_code, set(refused.get_json())) == (400, {"error", "error_type"})
    assert len(sentence.post("/embed", json={**long, "truncate": True, "dimensions": 8}).get_json()[0]) == 8


def test_information_on_the_model_is_what_text_embeddings_inference_tells(sentence, bert):
    told = sentence.get("/info").get_json()
    assert (told["model_id"], told["max_input_length"], told["auto_truncate"]) == ("tiny-sentence", 40, False)
    assert told["model_type"] == {"embedding": {"pooling": "cls"}}
    refused = bert.get("/info")
    assert (refused.status_code, refused.get_json()["error_type"]) == (400, "Validation")


@pytest.mark.parametrize(
    "value", [None, "", [], [""], [[]], ["a", 1], [1, "a"], [-1], [384], [[1], [10**6]], [True], 5, {}]
)
def test_bad_inputs_are_refused_by_name(sentence, value):
    assert_envelope(sentence.post("/v1/embeddings", json={"input": value}), 400, "invalid_parameter", "input")


GENERATING = {
    "/complete": {"prompt": "a"},
    "/chat": {"prompt": "a"},
    "/infill": {"prefix": "a"},
    "/v1/completions": {"prompt": "a"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "a"}]},
    "/": {"data": "a"},
}


@pytest.mark.parametrize("route", GENERATING)
def test_an_encoder_says_that_it_does_not_generate(bert, route):
    error = assert_envelope(bert.post(route, json=GENERATING[route]), 400, "unsupported_parameter")
    assert error["message"] == "the model tiny-bert does not generate text: its task is fill-mask"
    if route != "/":
        named = bert.post(route, json=GENERATING[route] | {"model": "tiny-bert"})
        assert assert_envelope(named, 400, "unsupported_parameter", "model")["message"] == error["message"]


def test_each_encoder_says_what_it_does_not_do(bert, sentence):
    error = assert_envelope(bert.post("/v1/embeddings", json={"input": "a"}), 400, "unsupported_parameter")
    assert error["message"] == "the model tiny-bert does not make embeddings: its task is fill-mask"
    response = sentence.post("/fill-mask", json={"text": "[MASK]"})
    assert "does not fill masks" in assert_envelope(response, 400, "unsupported_parameter")["message"]


def test_a_request_takes_one_place_however_many_texts_it_has(model_folder):
    world = RealWorld(model_folder("bert"), max_queue=0)
    client = world.client()
    assert client.post("/fill-mask", json={"text": ["[MASK]"] * 50}).status_code == 200
    place = world.context.admission.enter()
    for route, body in {
        "/fill-mask": {"text": "[MASK]"},
        "/tokenize": {"text": "a"},
        "/detokenize": {"tokens": [5]},
    }.items():
        assert_envelope(client.post(route, json=body), 503, "overloaded")
    place.release()
    world.stop()


def test_a_deadline_that_has_passed_is_told(bert, bert_world, monkeypatch):
    batcher = bert_world.inference.handles[0].prepared.engine
    monkeypatch.setattr(batcher, "_clock", lambda: float("1e12"))
    response = bert.post("/fill-mask", json={"text": TEXTS})
    assert_envelope(response, 504, "request_timeout")
    assert response.headers["X-Should-Retry"] == "false"


def test_the_log_line_holds_the_recordid(bert):
    with capture_logs() as lines:
        bert.post("/fill-mask", json={"text": "[MASK]", "recordid": "r-1"})
    line = next(line for line in lines if line["event"] == "request")
    assert (line["recordid"], line["route"], line["model"]) == ("r-1", "/fill-mask", "tiny-bert")
    assert (line["prompt_tokens"], line["completion_tokens"], line["finish_reason"]) == (3, 0, "stop")


@pytest.mark.parametrize(
    ("kind", "route", "field", "method"),
    [("sentence", "/v1/embeddings", "input", "read"), ("bert", "/fill-mask", "text", "encode")],
)
def test_a_text_that_does_not_fit_spares_the_ones_behind_it(request, monkeypatch, kind, route, field, method):
    encoded, encode = [], getattr(EncoderModel, method)

    def counted(self, text, **options):
        encoded.append(text)
        return encode(self, text, **options)

    monkeypatch.setattr(EncoderModel, method, counted)
    body = {field: ["a [MASK]", "b [MASK] " * 70, "c [MASK]"]}
    response = request.getfixturevalue(kind).post(route, json=body)
    assert_envelope(response, 400, "context_length_exceeded", field)
    assert encoded == body[field][:2]
