"""Models that keep latents and make keys and values of them in each pass (DeepSeek's attention)."""

from __future__ import annotations

import random

import pytest
import torch

from app.core.settings import load_settings
from app.engine.generation.plan import Chunk
from app.engine.runners.mixed import MixedRunner
from app.models.checkpoint.source import find_source
from app.models.forecast import predict
from tests.unit.engine.driver import TokenLog, load
from tests.unit.engine.test_preparation import prepared
from tests.unit.engine.test_windowed import require_answers_of_generate

ENVIRON = {"FORKLIFT_MAX_BATCH_SIZE": "5", "FORKLIFT_PREFILL_CHUNK_TOKENS": "40"}


@pytest.fixture
def ready(model_folder):
    return prepared(model_folder("deepseek_v3"), **ENVIRON)


def test_rows_of_latents_answer_as_generate_does(ready, monkeypatch):
    assert (ready.engine_name, ready.dropped) == ("mixed", ())
    require_answers_of_generate(ready.model, ready.engine, TokenLog(monkeypatch), random.Random(1))


def test_latents_are_foretold_to_the_byte(ready, model_folder):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("deepseek_v3")), **ENVIRON})
    assert predict(find_source(settings, None), settings).kv_bytes == ready.kv_memory.max_bytes


@torch.inference_mode()
def test_a_mixed_pass_makes_keys_of_what_it_reads_and_of_no_other_entries(model_folder, monkeypatch):
    model = load(model_folder("deepseek_v3"))
    runner = MixedRunner(model.checkpoint, 8, model.context_tokens)
    for row, length in ((0, 3), (1, 7)):
        runner.prefill(row, list(range(10, 10 + length)), 0)
    expanded, expand = [], torch.nn.Linear.forward
    monkeypatch.setattr(
        torch.nn.Linear,
        "forward",
        lambda layer, states: expanded.append((layer, states.shape)) or expand(layer, states),
    )
    runner.mixed([5, 6], [3, 7], [Chunk(3, [8, 9, 10], 0)])
    attention = model.checkpoint.model.model.layers[0].self_attn
    assert [shape[:3] for layer, shape in expanded if layer is attention.kv_b_proj] == [(1, 1, 2 * 8 + 3)]
