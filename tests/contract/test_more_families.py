"""Further families of encoders, a few tasks each: what transformers says of the same texts; vectors of embedders."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GteConfig,
    ModernBertConfig,
    NomicBertConfig,
    Qwen3Config,
    XLMRobertaConfig,
    pipeline,
)

from tests.contract.real import RealWorld
from tests.contract.test_entities import CONTEXT, QUESTION, answers_by_the_rule, plain
from tests.contract.test_text_tasks import plain_logits
from tests.contract.text_tasks import answer_of, assert_near
from tests.tiny_encoders import MOST_TOKENS, SHAPE, byte_pairs, spread
from tests.tiny_models import write_sentence_files

pytestmark = [
    pytest.mark.slow,  # further families of what the default suite has three of
    pytest.mark.filterwarnings("ignore:Tokenizer does not support real words"),
]
TEXTS = ["def load(folder): return model", "a", "the tokenizer of a model. " * 2, "naïve 日本語 🎉"]
LABELS = ["load", "a model"]
CASES = [
    *(("deberta", task) for task in ("zero-shot", "rerank", "entities", "answer")),
    *(("xlmr", task) for task in ("classify", "rerank", "entities")),
    *(("bart", task) for task in ("classify", "zero-shot", "answer")),
    *(("mpnet", task) for task in ("rerank", "answer")),
    *(("electra", task) for task in ("entities", "answer")),
    *(("albert", task) for task in ("classify", "zero-shot")),
]


def of_classify(folder):
    classify = pipeline("text-classification", model=str(folder))
    return "/classify", {"text": TEXTS, "top_k": 3}, [classify(text, top_k=3) for text in TEXTS]


def of_zero_shot(folder):
    classify = pipeline("zero-shot-classification", model=str(folder))
    body = {"text": TEXTS, "candidate_labels": LABELS}
    return "/zero-shot", body, [classify(text, candidate_labels=LABELS) for text in TEXTS]


def of_entities(folder):
    find = pipeline("token-classification", model=str(folder))
    body = {"text": TEXTS, "aggregation_strategy": "simple"}
    return "/entities", body, [plain(find(text, aggregation_strategy="simple")) for text in TEXTS]


def of_rerank(folder):
    logits = torch.tensor(plain_logits(folder, "load", TEXTS))
    order = logits.argsort(descending=True).tolist()
    expected = [{"index": at, "relevance_score": float(logits[at].sigmoid())} for at in order]
    return "/rerank", {"query": "load", "documents": TEXTS}, expected


def of_answer(folder):
    body = {"question": QUESTION, "context": CONTEXT, "top_k": 3, "max_answer_len": 4, "max_seq_len": 40}
    expected = answers_by_the_rule(folder, size=40, overlap=10, longest=4, top_k=3)
    return "/answer", {**body, "doc_stride": 10}, expected


REQUESTS = {
    "classify": of_classify,
    "zero-shot": of_zero_shot,
    "entities": of_entities,
    "rerank": of_rerank,
    "answer": of_answer,
}


@pytest.mark.parametrize(("family", "task"), CASES)
def test_texts_together_get_what_transformers_says_of_each_alone(model_folder, family, task):
    folder = model_folder(f"{family}-{task}")
    path, body, expected = REQUESTS[task](folder)
    world = RealWorld(folder)
    found = answer_of(world.client().post(path, json=body))
    assert_near(found["results"] if task == "rerank" else found, expected)
    [model] = world.client().get("/v1/capabilities").get_json()["data"]
    assert (model["task"], model["dropped"]) == (task, [])
    world.stop()


ENDS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
COMMON = {**SHAPE, "max_position_embeddings": MOST_TOKENS + 2}
# Of each embedder: its config and what that has beside the common, whose marks its tokenizer has, how it pools.
EMBEDDERS = {
    "modernbert": (ModernBertConfig, {**ENDS, "local_attention": 16}, "modernbert", "cls_token"),
    "xlm-roberta": (XLMRobertaConfig, {"type_vocab_size": 1}, "roberta", "mean_tokens"),
    "gte": (GteConfig, {"pad_token_id": 1}, "roberta", "cls_token"),
    "nomic": (NomicBertConfig, {"pad_token_id": 1}, "modernbert", "mean_tokens"),
    "qwen3": (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 16}, "qwen2", "lasttoken"),
}


@pytest.mark.parametrize("name", EMBEDDERS)
def test_vectors_are_pooled_from_a_plain_pass_of_each_text(tmp_path, name):
    kind, options, marks, mode = EMBEDDERS[name]
    tokenizer = byte_pairs("\n".join(TEXTS) * 40, marks)
    torch.manual_seed(0)
    model = AutoModel.from_config(kind(vocab_size=len(tokenizer), **COMMON, **options)).eval()
    spread(model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    write_sentence_files(tmp_path, mode)
    read = AutoTokenizer.from_pretrained(tmp_path)
    expected = []
    with torch.inference_mode():
        for text in TEXTS:
            states = model(**read(text, return_tensors="pt")).last_hidden_state[0]
            pooled = {"cls_token": states[0], "lasttoken": states[-1], "mean_tokens": states.mean(0)}[mode]
            expected.append(torch.nn.functional.normalize(pooled, dim=-1).tolist())
    world = RealWorld(tmp_path)
    found = answer_of(world.client().post("/v1/embeddings", json={"input": TEXTS}))
    vectors = torch.tensor([one["embedding"] for one in found["data"]])
    assert torch.nn.functional.cosine_similarity(vectors, torch.tensor(expected)).min() > 1 - 1e-5
    assert_near(vectors.tolist(), expected)
    world.stop()


def test_a_decoder_whose_config_names_no_padding_classifies_text_by_text_without_a_failed_check(tmp_path, capsys):
    tokenizer = byte_pairs("\n".join(TEXTS) * 40, "qwen2")
    torch.manual_seed(0)
    names = {0: "bad", 1: "fair", 2: "good"}
    shape = {"n_positions": MOST_TOKENS, "n_embd": 64, "n_layer": 2, "n_head": 4}
    config = GPT2Config(vocab_size=len(tokenizer), **shape, id2label=names, bos_token_id=0, eos_token_id=2)
    model = AutoModelForSequenceClassification.from_config(config)
    spread(model)
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    world = RealWorld(tmp_path)
    classify = pipeline("text-classification", model=str(tmp_path))
    found = answer_of(world.client().post("/classify", json={"text": TEXTS, "top_k": 3}))
    assert_near(found, [classify(text, top_k=3) for text in TEXTS])
    world.stop()
    assert "step_failed_check" not in capsys.readouterr().out
