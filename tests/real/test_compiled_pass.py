"""SmolLM2 in float32 by passes that g++ compiles here: the tokens of ``generate``, alone, together and with drafts."""

from __future__ import annotations

import shutil

import pytest

from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.runners.compiled import NativeRunner
from app.models.weights.fused.fused_layers import fuse_layers
from tests.native_passes import COMPILER, native_pass
from tests.real.prompts import CHAT, CHINESE, CODE
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, run

NUM_NEW = 24
DTYPE = {"FORKLIFT_DTYPE": "float32"}

pytestmark = pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no g++ to compile passes with")


@pytest.fixture(scope="module")
def expected(smollm2) -> list[tuple[list[int], list[int]]]:
    """Prompts, and what transformers' own loop makes of them."""
    model = load(smollm2, **DTYPE)
    prompts = [model.encode_chat([{"role": "user", "content": text}]) for text in CHAT]
    prompts += [model.encode(text) for text in CODE + CHINESE]
    assert len(prompts) == 22
    return [(prompt, greedy_reference(model, prompt, NUM_NEW, eos_token_id=None)) for prompt in prompts]


@pytest.mark.parametrize(("rows", "drafts"), [(1, 0), (16, 0), (4, 4)])
def test_compiled_passes_give_the_tokens_of_generate(smollm2, expected, monkeypatch, rows, drafts):
    model = load(smollm2, **DTYPE)
    fuse_layers(model.checkpoint)
    runner = NativeRunner(native_pass(model.checkpoint), model.checkpoint, rows, model.context_tokens)
    passes = []
    made = runner._run
    monkeypatch.setattr(runner, "_run", lambda tokens: passes.append(made(tokens)) or passes[-1])
    log = TokenLog(monkeypatch)
    jobs = [greedy_job(prompt, NUM_NEW) for prompt, _ in expected]
    run(BatchedEngine(model, BatchOptions(rows, 64, num_draft_tokens=drafts), runner), *jobs)
    assert [log.of(job) for job in jobs] == [tokens for _, tokens in expected]
    # All but the very first, before which there are no buffers.
    assert sum(one is not None for one in passes) >= len(passes) - 1 > NUM_NEW
