"""SmolLM2 from its GGUF file: in float32 what transformers says of it, packed nearly the same in less memory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from app.models.checkpoint.gguf_loading.gguf_source import plain_options
from tests.real.conftest import folder_of
from tests.real.prompts import CHAT, CHINESE, CODE
from tests.real.test_precision import measured
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, run
from tests.unit.engine.test_parity import served

NUM_NEW = 24


@pytest.fixture(scope="module")
def gguf() -> Path:
    return folder_of("smollm2-gguf")


def test_greedy_text_in_float32_is_that_of_transformers_own_load(gguf, monkeypatch):
    [file] = gguf.glob("*.gguf")
    plain = AutoModelForCausalLM.from_pretrained(gguf, gguf_file=file.name, dtype=torch.float32, **plain_options())
    model = served(gguf, FORKLIFT_DTYPE="float32")
    prompts = [model.encode_chat([{"role": "user", "content": text}]) for text in CHAT]
    prompts += [model.encode(text) for text in CODE + CHINESE]
    assert len(prompts) >= 20
    jobs = [greedy_job(prompt, NUM_NEW) for prompt in prompts]
    log = TokenLog(monkeypatch)
    run(generator_of(model, max_running=4), *jobs)
    for prompt, job in zip(prompts, jobs, strict=True):
        ids = torch.tensor([prompt])
        told = plain.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NUM_NEW,
            eos_token_id=None,
            pad_token_id=0,
        )
        assert log.of(job) == told[0, len(prompt) :].tolist()


def test_the_packed_form_costs_at_most_one_percent_of_perplexity(gguf, documentation):
    rows = measured(gguf, documentation, ["bfloat16", "file"], 1024)
    assert rows["file"]["perplexity"] == pytest.approx(rows["float32"]["perplexity"], rel=0.01)
    assert rows["file"]["mean_kl"] <= 0.01
    assert rows["file"]["weights_bytes"] < 0.6 * rows["bfloat16"]["weights_bytes"]
