"""Weights spread over devices: where layers go, what is refused, and that the answers stay the same.

No GPU is needed: maps for GPUs are computed from the model's shape, and the hooks that bring weights
and inputs together run with layers on disk.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from structlog.testing import capture_logs
from transformers import PreTrainedModel, Qwen2Config

from app.core.errors import ModelLoadError
from app.core.settings import load_settings
from app.engine.checks.plain_cache import has_plain_cache
from app.models.checkpoint.loader import load_checkpoint, without_weights
from app.models.checkpoint.placement import memory_limits, place, spread
from app.models.checkpoint.source import Source
from tests.families.wide import save_wide_model
from tests.thinned import few_of
from tests.unit.engine.driver import (
    TokenLog,
    can_use_slots,
    generator_of,
    greedy_job,
    greedy_reference,
    load,
    random_prompt,
    run,
)

NUM_NEW = 12
FAMILIES = ("qwen2", "codegen", "xglm", "glm", "gpt2", "gpt_bigcode", "llama")
GPU = torch.device("cuda", 0)


def on_disk(tmp_path: Path, limit: str = "cpu=350KB") -> dict[str, str]:
    """Settings that leave most layers of a tiny model on disk."""
    return {"FORKLIFT_MAX_MEMORY": limit, "FORKLIFT_OFFLOAD_FOLDER": str(tmp_path / "offload")}


def shape(*, is_tied: bool = False) -> PreTrainedModel:
    """A model of eight layers without weights."""
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=384, num_hidden_layers=8, tie_word_embeddings=is_tied, **sizes)
    return without_weights(Source("", {}, config, None, "generate"), load_settings({}))


def bytes_of(model: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())


class TestTheMap:
    def test_layers_are_shared_evenly_between_gpus(self):
        model = shape()
        device_map = spread(model, {0: bytes_of(model), 1: bytes_of(model), "cpu": 0})
        layers = [device for name, device in device_map.items() if ".layers." in name]
        assert sorted(set(layers)) == [0, 1]
        assert 3 <= layers.count(0) <= 5
        assert layers == sorted(layers), "neighbours stay together"

    def test_what_gpus_do_not_hold_goes_to_memory_then_to_disk(self):
        model = shape()
        share = bytes_of(model) // 2
        assert list(dict.fromkeys(spread(model, {0: share, "cpu": share // 2}).values())) == [0, "cpu", "disk"]

    def test_no_layer_is_split(self):
        device_map = spread(shape(), {"cpu": 400_000})
        assert set(device_map.values()) == {"cpu", "disk"}
        assert not [name for name in device_map if name.count(".") > 2]

    def test_tied_weights_stay_together(self):
        model = shape(is_tied=True)
        device_map = spread(model, {"cpu": bytes_of(model) * 2 // 3})
        assert device_map["model.embed_tokens"] == device_map["lm_head"] == "cpu"


class TestTheLimits:
    def test_gpus_get_most_of_what_is_free_and_memory_only_what_was_given(self):
        assert memory_limits({}, 2, lambda device: 1000) == {0: 900, 1: 900, "cpu": 0}
        assert memory_limits({1: 50, "cpu": 70}, 2, lambda device: 1000) == {0: 900, 1: 50, "cpu": 70}

    def test_without_a_gpu_memory_is_what_is_free(self):
        assert memory_limits({}, 0, lambda device: 1000) == {"cpu": 900}


class TestPlacing:
    def test_one_device_needs_no_map_of_layers(self):
        settings = load_settings({})
        assert place(settings, torch.device("cpu"), no_shape).device_map is None
        assert place(settings, GPU, no_shape).device_map == {"": GPU}

    def test_nothing_is_offloaded_unasked(self, model_folder):
        settings = load_settings({"FORKLIFT_MODEL": str(model_folder("qwen2")), "FORKLIFT_MAX_MEMORY": "cpu=150KB"})
        with pytest.raises(ModelLoadError, match=r"do not fit into cpu=0\.00GiB: raise FORKLIFT_MAX_MEMORY"):
            load_checkpoint(settings, lambda _: None)

    def test_a_folder_that_cannot_be_made_is_named(self, model_folder, tmp_path):
        (tmp_path / "file").write_text("")
        environ = {"FORKLIFT_MAX_MEMORY": "cpu=150KB", "FORKLIFT_OFFLOAD_FOLDER": str(tmp_path / "file" / "sub")}
        with pytest.raises(ModelLoadError, match=r"FORKLIFT_OFFLOAD_FOLDER: cannot make .*: Not a directory"):
            load(model_folder("qwen2"), **environ)

    def test_a_model_that_fits_stays_whole(self, model_folder, tmp_path):
        model = load(model_folder("qwen2"), **on_disk(tmp_path, "cpu=1GiB"))
        assert not any(weight.is_meta for weight in model.checkpoint.model.parameters())

    def test_the_log_says_how_many_bytes_lie_where(self, model_folder, tmp_path):
        with capture_logs() as lines:
            model = load(model_folder("qwen2"), **on_disk(tmp_path)).checkpoint.model
        [line] = [line for line in lines if line["event"] == "model_spread"]
        assert set(line["bytes"]) == {"cpu", "disk"}
        assert sum(line["bytes"].values()) == bytes_of(model)
        assert line["bytes"]["cpu"] == sum(w.numel() * w.element_size() for w in model.parameters() if not w.is_meta)

    def test_quantised_weights_are_not_spread_over_gpus(self):
        settings = load_settings({"FORKLIFT_GPUS_PER_WORKER": "2", "FORKLIFT_QUANTIZATION": "int8"})
        with pytest.raises(ModelLoadError, match="GPUS_PER_WORKER must be 1"):
            place(settings, GPU, no_shape)


def no_shape() -> None:
    raise AssertionError("the model's shape was asked for")


@pytest.mark.parametrize("family", few_of(FAMILIES, 2))
def test_layers_on_disk_change_no_token_and_run_on_slots(model_folder, monkeypatch, tmp_path, family):
    whole = load(model_folder(family))
    model = load(model_folder(family), **on_disk(tmp_path))
    assert any(weight.is_meta for weight in model.checkpoint.model.parameters())
    assert has_plain_cache(model) and can_use_slots(model)
    log = TokenLog(monkeypatch)
    generator = generator_of(model, max_running=3, chunk=20)
    rng = random.Random(7)
    jobs = [greedy_job(random_prompt(rng, length), NUM_NEW) for length in (1, 9, 70)]
    run(generator, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(whole, job.prompt_ids, NUM_NEW, eos_token_id=None)
    buffers = [layer.keys for layer in generator.runner.cache.row_layers]
    assert {buffer.device for buffer in buffers} == {model.checkpoint.device}


@pytest.mark.parametrize("family", ["bert", "sentence"])
def test_encoders_can_lie_on_disk_too(model_folder, tmp_path, family):
    checkpoints = [
        load_checkpoint(load_settings({"FORKLIFT_MODEL": str(model_folder(family)), **environ}), lambda _: None)
        for environ in ({}, on_disk(tmp_path))
    ]
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        whole, offloaded = (checkpoint.model(input_ids=ids)[0] for checkpoint in checkpoints)
    assert torch.equal(whole, offloaded)


MEASURE = """
import json, sys
from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
import torch

def anonymous_kib():
    [line] = [line for line in open("/proc/self/smaps_rollup") if line.startswith("Pss_Anon")]
    return int(line.split()[1])

with torch.inference_mode():
    load_checkpoint(load_settings({"FORKLIFT_MODEL": sys.argv[2]}), lambda _: None).model(torch.tensor([[1, 2]]))
    before = anonymous_kib()
    kept = load_checkpoint(load_settings(json.loads(sys.argv[1])), lambda _: None)
    logits = kept.model(torch.tensor([[1, 2, 3]])).logits
print(json.dumps([(anonymous_kib() - before) * 1024, logits.float().sum().item()]))
"""


@pytest.mark.slow
def test_layers_on_disk_take_no_memory(model_folder, tmp_path):
    """In a dtype that is not the checkpoint's: weights as they are on disk are mapped anyway."""
    folder = save_wide_model(tmp_path / "wide", num_mib=96)
    common = {"FORKLIFT_MODEL": str(folder), "FORKLIFT_DTYPE": "bfloat16"}
    environs = [common, common | on_disk(tmp_path, "cpu=24MiB")]
    (whole, expected), (offloaded, found) = (measure(environ, model_folder("qwen2")) for environ in environs)
    assert whole > 40 * 2**20, "48 MiB in bfloat16"
    # Half of it would stay in memory anyway: 24 of 48 MiB; what a load leaves behind comes to both.
    assert offloaded < 0.6 * whole
    assert found == expected


def measure(environ: dict[str, str], small: Path) -> list[float]:
    """Private memory that a load takes in a fresh process, and what the model answers."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(environ), str(small)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])
