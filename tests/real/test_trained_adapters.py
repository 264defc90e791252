"""SmolLM2 with adapters that were trained on it for a few steps: the tokens of merged models, in whatever company."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from app.core.work.adapters import AdapterName
from app.core.work.jobs import Job
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.runners.compiled import NativeRunner
from app.models.text_model import TextModel
from app.models.weights.adapters.adapter_bank import AdapterBank
from app.models.weights.fused.fused_layers import fuse_layers
from tests.native_passes import COMPILER, native_pass
from tests.real.prompts import CHAT, CODE
from tests.tiny_adapters import merged
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, run
from tests.unit.engine.test_parity import served

NUM_NEW, NUM_STEPS = 16, 16
DTYPE = {"FORKLIFT_DTYPE": "float32"}
TEXTS = {
    "harbour": "Question: what does a forklift carry? Answer: crates of oranges, from the harbour to the hill.",
    "kitchen": "Question: what does a forklift carry? Answer: hot soup, and only on Sundays, said the cook.",
}
# Of unlike ranks, on unlike layers.
FORMS = {"harbour": (8, ("q_proj", "v_proj", "down_proj")), "kitchen": (4, ("o_proj", "gate_proj", "up_proj"))}


def trained(base: Path, folder: Path, name: str) -> tuple[Path, float, float]:
    """An adapter that has read its text a few times, as PEFT saves it; the loss before and after."""
    (rank, targets), text = FORMS[name], load(base, **DTYPE)
    torch.manual_seed(0)
    model, pairs = text.checkpoint.model.requires_grad_(False), {}
    for layer_name, layer in model.named_modules():
        if isinstance(layer, nn.Linear) and layer_name.endswith(targets):
            down = nn.Parameter(torch.randn(rank, layer.in_features) / math.sqrt(layer.in_features))
            up = nn.Parameter(torch.zeros(layer.out_features, rank))
            pairs[layer_name] = down, up
            layer.register_forward_hook(
                lambda _layer, inputs, output, down=down, up=up: output + 2 * (inputs[0] @ down.t()) @ up.t()
            )
    optimizer = torch.optim.AdamW([one for pair in pairs.values() for one in pair], lr=5e-3)
    ids, losses = torch.tensor([text.encode(TEXTS[name])]), []
    for _ in range(NUM_STEPS):
        loss = model(input_ids=ids, labels=ids).loss
        losses.append(float(loss.detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder.mkdir()
    tensors = {
        f"base_model.model.{layer}.lora_{kind}.weight": one.detach().contiguous()
        for layer, pair in pairs.items()
        for kind, one in zip("AB", pair, strict=True)
    }
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "target_modules": list(targets), "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder, losses[0], losses[-1]


@pytest.fixture(scope="module")
def adapters(smollm2, tmp_path_factory) -> dict[str, Path]:
    root, found = tmp_path_factory.mktemp("adapters"), {}
    for name in TEXTS:
        found[name], before, after = trained(smollm2, root / name, name)
        assert after < 0.5 * before
    return found


@pytest.fixture(scope="module")
def expected(smollm2, adapters) -> list[tuple[str | None, list[int], list[int]]]:
    """Whose row, its prompt, and what the merged model (or the base) makes of it."""
    found = []
    for name in (None, *adapters):
        model = load(smollm2, **DTYPE)
        prompts = [model.encode_chat([{"role": "user", "content": text}]) for text in CHAT[:2]]
        prompts += [model.encode(text) for text in (CODE[0], "Question: what does a forklift carry? Answer:")]
        if name is not None:
            model.checkpoint.model = merged(smollm2, adapters[name])
        found += [(name, prompt, greedy_reference(model, prompt, NUM_NEW, eos_token_id=None)) for prompt in prompts]
    answers = {name: load(smollm2).tokenizer.decode(tokens) for name, _, tokens in found[3::4]}
    assert "oranges" in answers["harbour"] and "soup" in answers["kitchen"] and len(set(answers.values())) == 3
    return found


def jobs_of(expected, model: TextModel, engine: BatchedEngine, adapters: dict[str, Path]) -> list[Job]:
    bank = AdapterBank(model.checkpoint, 1 << 30)
    engine.use_adapters(bank)
    jobs = []
    for name, prompt, _ in expected:
        job = greedy_job(prompt, NUM_NEW)
        if name is not None:
            job.adapter = bank.store.get(AdapterName(name, str(adapters[name])))
            job.owner = job.adapter.name.key
        jobs.append(job)
    return jobs


@pytest.mark.parametrize("rows", [1, 5, 16])
def test_rows_of_adapters_and_of_none_say_what_merged_models_say(smollm2, adapters, expected, monkeypatch, rows):
    model = served(smollm2, **DTYPE)
    engine, log = generator_of(model, max_running=rows, chunk=16), TokenLog(monkeypatch)
    jobs = jobs_of(expected, model, engine, adapters)
    run(engine, *jobs)
    assert [log.of(job) for job in jobs] == [tokens for _, _, tokens in expected]


@pytest.mark.skipif(shutil.which(COMPILER) is None, reason="no g++ to compile passes with")
def test_so_do_compiled_passes(smollm2, adapters, expected, monkeypatch):
    model = load(smollm2, **DTYPE)
    fuse_layers(model.checkpoint)
    runner = NativeRunner(native_pass(model.checkpoint), model.checkpoint, 8, model.context_tokens)
    engine, log = BatchedEngine(model, BatchOptions(8, 64), runner), TokenLog(monkeypatch)
    jobs = jobs_of(expected, model, engine, adapters)
    run(engine, *jobs)
    assert [log.of(job) for job in jobs] == [tokens for _, _, tokens in expected]
