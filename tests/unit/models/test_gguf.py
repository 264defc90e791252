"""A model from a GGUF file is what transformers reads of it, and keeps its 4-bit codes where it can."""

from __future__ import annotations

import gguf
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.core.settings import load_settings
from app.engine.loading.build import prepare
from app.models.checkpoint.gguf_loading.gguf_blocks import GgufGrid, attach
from app.models.checkpoint.gguf_loading.gguf_source import plain_options
from app.models.checkpoint.loader import load_checkpoint
from app.models.checkpoint.prequantized.served_form import served_settings
from app.models.folder.gguf.gguf_header import read_header
from app.models.forecast import inspect, resident_weight_bytes
from app.models.weights.grids import grid_of
from app.models.weights.int4_linear import Int4Linear
from app.models.weights.int8_linear import Int8Linear
from app.models.weights.quantization import model_bytes
from tests.tiny_gguf import write_gguf

IDS = torch.tensor([[(i * 31) % 300 + 20 for i in range(40)]])
MIXED = {"": "Q4_K", "attn_v": "Q6_K", "ffn_down": "Q8_0", "token_embd": "Q8_0", "output": "Q8_0"}
PLAIN = {"": "Q4_1", "token_embd": "Q8_0", "output": "Q8_0"}


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory):
    """A file of a family, its kinds of blocks by name; each is written once."""
    folder = tmp_path_factory.mktemp("gguf")
    named = {"plain": PLAIN, "mixed": {**MIXED, "attn_v": "Q5_0"}, "halves": {"": "F16"}, "eight": {"": "Q8_0"}}

    def file(family: str, kinds: str):
        path = folder / f"{family}-{kinds}.gguf"
        return path if path.exists() else write_gguf(path, family, named[kinds])

    return file


def settings_of(path, **more: str):
    return load_settings({"FORKLIFT_MODEL": str(path), **{f"FORKLIFT_{key}": value for key, value in more.items()}})


def by_transformers(path, dtype: torch.dtype):
    return AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype, **plain_options())


@torch.inference_mode()
def logits_of(model) -> torch.Tensor:
    return model(input_ids=IDS, use_cache=False).logits[0].float()


@pytest.mark.parametrize(("family", "kinds"), [("llama", "plain"), ("qwen2", "plain"), ("llama", "mixed")])
def test_blocks_mean_what_transformers_reads(gguf_file, family, kinds):
    path = gguf_file(family, kinds)
    model, header = by_transformers(path, torch.float32), read_header(path)
    num_wanted = sum(
        tensor.kind.name in ("Q4_0", "Q4_1", "Q4_K") and ".weight" in name and name.startswith("blk.")
        for name, tensor in header.tensors.items()
    )
    assert attach(model, header) == num_wanted > 0
    for layer in model.modules():
        if (grid := grid_of(layer)) is not None:
            torch.testing.assert_close(grid.read().weight(), layer.weight.detach(), rtol=1e-6, atol=1e-7)


def test_all_kinds_of_four_bits_are_unpacked_as_ggml_does(tmp_path):
    for kind in ("Q4_0", "Q4_1", "Q4_K"):
        header = read_header(write_gguf(tmp_path / f"{kind}.gguf", "qwen2", {"": kind, "token_embd": "Q8_0"}))
        tensor = header.tensors["blk.1.ffn_down.weight"]
        [told] = [one for one in gguf.GGUFReader(header.path).tensors if one.name == tensor.name]
        expected = torch.from_numpy(gguf.quants.dequantize(told.data, told.tensor_type))
        torch.testing.assert_close(GgufGrid(header.path, tensor).read().weight(), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("kinds", "form"), [("plain", "file"), ("mixed", "file"), ("eight", "int8"), ("halves", "none")]
)
def test_the_form_follows_the_file_unless_the_operator_says_otherwise(gguf_file, kinds, form):
    path = gguf_file("llama", kinds)
    assert served_settings(settings_of(path)).quantization == form
    assert served_settings(settings_of(path, DTYPE="float32")).quantization == "none"
    assert served_settings(settings_of(path, QUANTIZATION="int4")).quantization == "int4"


@pytest.mark.slow
def test_a_file_of_blocks_is_never_float32_unasked(gguf_file):
    plain = settings_of(gguf_file("llama", "plain"))
    assert load_checkpoint(plain, lambda _: None).dtype == torch.bfloat16
    assert load_checkpoint(settings_of(gguf_file("llama", "halves")), lambda _: None).dtype == torch.float16


@pytest.mark.slow
@pytest.mark.parametrize(("family", "kinds"), [("llama", "plain"), ("qwen2", "plain"), ("llama", "mixed")])
def test_what_serves_is_near_the_file_and_as_large_as_foretold(gguf_file, family, kinds):
    path = gguf_file(family, kinds)
    settings = settings_of(path)
    foretold = inspect(next(iter(settings.plans))).footprint
    prepared = prepare(settings, lambda _: None)
    assert (prepared.dropped, prepared.settings.quantization) == ((), "file")
    checkpoint = prepared.model.checkpoint
    found, exact = logits_of(checkpoint.model), logits_of(by_transformers(path, torch.float32))
    assert (found - exact).norm() / (exact - exact.mean(-1, keepdim=True)).norm() < 0.03
    kept = [layer for layer in checkpoint.model.modules() if isinstance(layer, Int4Linear)]
    others = [layer for layer in checkpoint.model.modules() if isinstance(layer, Int8Linear)]
    assert (len(kept), len(others)) == ((8, 1) if kinds == "plain" else (4, 5))
    if kinds == "plain":
        assert model_bytes(checkpoint.model) == pytest.approx(foretold.weight_bytes, rel=0.02)
    assert resident_weight_bytes(next(iter(settings.plans))) >= foretold.weight_bytes


@pytest.mark.slow
def test_in_float32_it_says_what_transformers_says(gguf_file):
    path = gguf_file("qwen2", "mixed")
    prepared = prepare(settings_of(path, DTYPE="float32"), lambda _: None)
    assert prepared.settings.quantization == "none"
    assert prepared.model.has_chat_template
    torch.testing.assert_close(
        logits_of(prepared.model.checkpoint.model),
        logits_of(by_transformers(path, torch.float32)),
        rtol=1e-4,
        atol=1e-4,
    )
