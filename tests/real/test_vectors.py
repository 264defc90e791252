"""Vectors of all-MiniLM-L6-v2 over HTTP point where a plain forward pass of each text alone points."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, AutoTokenizer

from app.core.settings import load_settings
from app.engine.loading.compiling.packaging import make_package
from app.models.compiled import compiled_step
from tests.contract.real import RealWorld
from tests.native_passes import COMPILER
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


@pytest.fixture(scope="module")
def package_folder(minilm, tmp_path_factory) -> Path:
    """A CACHE_DIR with the package that `forklift compile` makes for the model, used however little it gains here."""
    if shutil.which(COMPILER) is None:
        pytest.skip("no g++ to compile layers with")
    folder = tmp_path_factory.mktemp("packages")
    environ = {"FORKLIFT_MODEL": str(minilm), "FORKLIFT_CACHE_DIR": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXX", COMPILER)
        make_package(load_settings(environ), lambda _: None)
    return folder


@pytest.mark.parametrize("is_compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("texts", [TEXTS[:1], MANY], ids=["one", "sixty-four"])
def test_vectors_point_where_those_of_a_plain_pass_do(request, monkeypatch, minilm, tmp_path, is_compiled, texts):
    folder = request.getfixturevalue("package_folder") if is_compiled else tmp_path
    # Nor must a busy machine decide what is tested.
    monkeypatch.setattr(compiled_step, "LEAST_GAIN", -math.inf)
    world = RealWorld(minilm, max_queue=70, cache_dir=folder)
    try:
        assert world.inference.handles[0].is_compiled is is_compiled
        answer = world.client().post("/v1/embeddings", json={"input": texts}).get_json()
    finally:
        world.stop()
    found = torch.tensor([one["embedding"] for one in answer["data"]], dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(found, plain_vectors(minilm, texts))
    assert len(cosines) == len(texts) and float(cosines.min()) > LEAST_COSINE
