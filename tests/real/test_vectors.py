"""Vectors of all-MiniLM-L6-v2 over HTTP point where a plain forward pass of each text alone points."""

from __future__ import annotations

import shutil

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from app.engine.checks import features
from tests.contract.real import RealWorld
from tests.native_passes import COMPILER, native_encoder
from tests.real.test_precision import TEXTS

LEAST_COSINE = 1 - 1e-5
# Unlike lengths: from a word to what the model reads at most.
MANY = ["A", *((TEXTS[at % len(TEXTS)] + " ") * (1 + at // 6) for at in range(63))]


@torch.inference_mode()
def plain_vectors(folder, texts: list[str]) -> torch.Tensor:
    """The mean of the last states of each text, by transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    passes = (model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double() for text in texts)
    return torch.stack([states.mean(dim=0) for states in passes])


@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("texts", [TEXTS[:1], MANY], ids=["one", "sixty-four"])
def test_vectors_point_where_those_of_a_plain_pass_do(minilm, monkeypatch, is_compiled, texts):
    if is_compiled and shutil.which(COMPILER) is None:
        pytest.skip("no g++ to compile layers with")
    if is_compiled:
        # As if its package were there.
        monkeypatch.setattr(features, "is_missing", lambda *_: False)
        monkeypatch.setattr(features, "find_layers", lambda model, _settings: native_encoder(model))
    world = RealWorld(minilm, max_queue=70)
    try:
        assert world.inference.handles[0].is_compiled is is_compiled
        answer = world.client().post("/v1/embeddings", json={"input": texts}).get_json()
    finally:
        world.stop()
    found = torch.tensor([one["embedding"] for one in answer["data"]], dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(found, plain_vectors(minilm, texts))
    assert len(cosines) == len(texts) and float(cosines.min()) > LEAST_COSINE
