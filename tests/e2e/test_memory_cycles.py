"""A model that comes and goes leaves no memory behind: neither mapped weights nor converted ones."""

from __future__ import annotations

import json

import pytest

from tests.e2e.conftest import Stream
from tests.e2e.several import Several, start_several
from tests.service.conftest import wait_for
from tests.tiny_models import save_tiny_model

NUM_CYCLES = 20
MIB = 2**20


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A Qwen2 of 55 MiB."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    folder = save_tiny_model("qwen2", tmp_path_factory.mktemp("large") / "qwen2")
    small = json.loads((folder / "config.json").read_text())
    shape = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6, "layer_types": None}
    AutoModelForCausalLM.from_config(Qwen2Config(**{**small, **shape})).save_pretrained(folder)
    assert (folder / "model.safetensors").stat().st_size > 50 * MIB
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, large, model_folder):
    once = {"path": large, "load": "on_demand", "idle_unload_s": 0}
    tables = {
        "resident": {"path": model_folder("gpt2")},
        "mapped": {**once, "dtype": "float32"},
        "converted": {**once, "dtype": "bfloat16"},
    }
    yield from start_several(tmp_path_factory.mktemp("cycles"), tables)


def use_once(server: Several, model: str) -> int:
    """Load, answer, unload; returns what the worker held while the model answered."""
    stream = Stream(server, 100, model=model)
    loaded_bytes = server.memory_bytes()
    assert stream.wait()[-1] == "data: [DONE]"
    wait_for(lambda: server.state(model) == "unloaded", "the model to be unloaded")
    return loaded_bytes


@pytest.mark.chaos
@pytest.mark.parametrize("model", ["mapped", "converted"])
def test_memory_returns_after_twenty_loads(server, model):
    server.complete("resident")
    unused = server.memory_bytes()
    # The first load also pays for code and tables that stay.
    loaded = use_once(server, model)
    before = server.memory_bytes()
    for _ in range(NUM_CYCLES):
        use_once(server, model)
    after = server.memory_bytes()
    figures = [f"{size / MIB:.1f}" for size in (unused, loaded, before, after)]
    print(f"{model}: {' '.join(figures)} MiB: unused, at most loaded, after the first load, after {NUM_CYCLES} more")
    assert server.num_loads(model) == NUM_CYCLES + 1
    assert loaded > before + 20 * MIB, "the model must weigh something"
    assert abs(after - before) < 0.1 * before
    assert server.complete("resident").status_code == 200
