"""What is compiled computes what the model's own layers do, and says of what models it cannot be made."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from transformers import DynamicCache

from app.core.settings import load_settings
from app.models.checkpoint.cache_argument import cache_argument_of
from app.models.checkpoint.loader import Checkpoint, load_checkpoint
from app.models.compiled import package_facts as facts
from app.models.compiled.package_facts import difference, facts_of, key_of, processor
from app.models.compiled.steps.step_graph import Parts, model_shape, parts_of
from app.models.weights import packing
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import pack, unpack_in_pieces
from app.models.weights.quantization import quantize
from tests.compiled_steps import uncompiled_step

PROMPT = list(range(9, 49))


def load(folder, *, fuses: bool = True, **environ: str) -> Checkpoint:
    checkpoint = load_checkpoint(load_settings({"FORKLIFT_MODEL": str(folder), **environ}), lambda _: None)
    if fuses:
        fuse_layers(checkpoint)
    return checkpoint


def parts(checkpoint: Checkpoint) -> Parts:
    found = parts_of(checkpoint)
    assert not isinstance(found, str), found
    return found


@torch.inference_mode()
def steps_of_both(checkpoint: Checkpoint) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits behind one more token than ``PROMPT``, by the step and by the model; both write the same cache entry."""
    cache, model, taken = DynamicCache(), checkpoint.model, parts(checkpoint)
    model(input_ids=torch.tensor([PROMPT]), use_cache=True, **{cache_argument_of(model): cache})
    kept = [
        tuple(torch.cat((one, torch.zeros_like(one)), dim=2) for one in (layer.keys, layer.values))
        for layer in cache.layers
    ]
    token, at = torch.tensor([[77]]), torch.tensor([[len(PROMPT)]])
    states = model.get_input_embeddings()(token)
    cos, sin = model.base_model.rotary_emb(states, at)
    found = uncompiled_step(taken).run(states[0], cos[0], sin[0], [len(PROMPT)], [0], kept)
    expected = model(input_ids=token, position_ids=at, use_cache=True, **{cache_argument_of(model): cache}).logits[0]
    bounds = {"rtol": 0.05, "atol": 0.05} if checkpoint.dtype == torch.bfloat16 else {"rtol": 1e-3, "atol": 1e-4}
    for (keys, values), layer in zip(kept, cache.layers, strict=True):
        torch.testing.assert_close(keys[:, :, len(PROMPT)], layer.keys[:, :, -1], **bounds)
        torch.testing.assert_close(values[:, :, len(PROMPT)], layer.values[:, :, -1], **bounds)
    return found, expected


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_step_gives_the_models_logits_and_writes_its_entries(model_folder, family):
    found, expected = steps_of_both(load(model_folder(family)))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_rows_of_unlike_lengths_in_any_order_are_what_each_is_alone(model_folder):
    """The last one twice: that is how three rows run on code for four."""
    checkpoint = load(model_folder("qwen2"))
    taken, model = parts(checkpoint), checkpoint.model
    shape, capacity = taken.shape, 64
    torch.manual_seed(0)
    kept = [
        tuple(torch.randn((5, shape.num_kv_heads, capacity, shape.head_dim)) for _ in range(2))
        for _ in range(shape.num_layers)
    ]
    tokens, positions, rows = [7, 8, 9, 9], [3, 60, 17, 17], [2, 0, 4, 4]

    def run(which: list[int], cache, used: list[int]) -> torch.Tensor:
        states = model.get_input_embeddings()(torch.tensor([[tokens[i] for i in which]]))
        at = [positions[i] for i in which]
        cos, sin = model.base_model.rotary_emb(states, torch.tensor([at]))
        return uncompiled_step(taken).run(states[0], cos[0], sin[0], at, used, cache)

    copied = [tuple(one.clone() for one in pair) for pair in kept]
    found = run([0, 1, 2, 3], copied, rows)
    for i in range(3):
        own = [tuple(one[rows[i] : rows[i] + 1].clone() for one in pair) for pair in kept]
        torch.testing.assert_close(found[i : i + 1], run([i], own, [0]), rtol=1e-4, atol=1e-5)
        for pair, mine in zip(copied, own, strict=True):
            for one, other in zip(pair, mine, strict=True):
                torch.testing.assert_close(one[rows[i]], other[0], rtol=1e-4, atol=1e-5)
    for pair, before in zip(copied, kept, strict=True):
        for one, other in zip(pair, before, strict=True):
            assert torch.equal(one[[1, 3]], other[[1, 3]])


@pytest.mark.parametrize(("num_layers", "per_call"), [(1, 1), (2, 2), (6, 3), (7, 1), (24, 4), (30, 5)])
def test_a_call_takes_as_many_layers_as_divide_them_up_to_five(model_folder, num_layers, per_call):
    shape = parts(load(model_folder("llama"))).shape
    assert replace(shape, num_layers=num_layers).layers_per_call == per_call


@pytest.mark.parametrize(
    ("family", "reason"), [("gpt2", "not all fused"), ("gpt_oss", "experts"), ("codegen", "not all fused")]
)
def test_a_model_of_another_kind_has_no_step(model_folder, family, reason):
    assert reason in str(parts_of(load(model_folder(family))))


def test_a_model_whose_layers_are_not_fused_has_no_step(model_folder):
    assert "not all fused" in str(parts_of(load(model_folder("llama"), fuses=False)))


def test_weights_in_another_layout_have_no_step_before_they_are_unpacked(model_folder, monkeypatch):
    packed, in_blocks, quantised = (load(model_folder("llama")) for _ in range(3))
    pack(packed, num_rows=1)
    monkeypatch.setattr(packing, "LEAST_BYTES", 0)
    pack(in_blocks, num_rows=packing.MANY_ROWS)
    quantize(quantised, "int8", 1)
    assert model_shape(packed) == model_shape(in_blocks) == model_shape(load(model_folder("llama")))
    for checkpoint in (packed, in_blocks, quantised):
        assert "weights are packed" in str(parts_of(checkpoint))
        copied = parts_of(checkpoint, unpacks=True)
        unpack_in_pieces(checkpoint, lambda: None)
        for taken, copy in zip(parts(checkpoint).layers, copied.layers, strict=True):
            assert all(torch.equal(one, other) for one, other in zip(taken, copy, strict=True))


@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "outliers"])
def test_a_step_of_codes_gives_the_logits_of_the_layers_that_hold_them(model_folder, kind, family):
    checkpoint = load(model_folder(family), FORKLIFT_QUANTIZATION=kind)
    quantize(checkpoint, kind, 1)
    unpack_in_pieces(checkpoint, lambda: None)
    assert {form.kind for form in parts(checkpoint).shape.forms} == {kind}
    found, expected = steps_of_both(checkpoint)
    # int4 computes in bfloat16.
    tolerance = 1e-4 if kind == "int8" else 0.05
    torch.testing.assert_close(found.float(), expected.float(), rtol=tolerance, atol=tolerance)


def test_layers_that_no_product_reads_have_no_step(model_folder):
    checkpoint = load(model_folder("llama"))
    checkpoint.model.base_model.layers[0].o_proj = torch.nn.Identity()
    assert "tiles" in str(model_shape(checkpoint))


def test_models_of_one_shape_share_a_package_and_others_do_not(model_folder, monkeypatch):
    first, other = parts(load(model_folder("llama"))), parts(load(model_folder("llama")))
    other.layers[0][0] = other.layers[0][0] + 1
    assert key_of(facts_of(first.shape)) == key_of(facts_of(other.shape))
    keys = {key_of(facts_of(parts(load(model_folder(family))).shape)) for family in ("llama", "qwen2")}
    keys.add(key_of(facts_of(parts(load(model_folder("llama"), FORKLIFT_DTYPE="bfloat16")).shape)))
    keys.add(key_of(facts_of(replace(first.shape, epsilons=(1e-6, 1e-6, 1e-5)))))
    assert len(keys) == 4
    before = facts_of(first.shape)
    monkeypatch.setattr(facts, "processor", lambda _: "avx2 sse2")
    assert key_of(facts_of(first.shape)) != key_of(before)


def test_facts_come_out_of_json_as_they_went_in(model_folder):
    wanted = facts_of(parts(load(model_folder("llama"))).shape)
    assert json.loads(json.dumps(wanted)) == wanted


@pytest.mark.parametrize(
    ("name", "words"),
    [("torch", "version of torch"), ("code", "version of Forklift"), ("processor", "processor"), ("shape", "model")],
)
def test_what_differs_is_named(name, words):
    wanted = {"shape": "s", "torch": "2", "code": "c", "processor": "p"}
    assert words in difference({**wanted, name: "another"}, wanted)


def test_a_processor_is_its_features_in_any_order():
    text = "processor\t: 0\nflags\t\t: sse2 avx2 fma\n\nprocessor\t: 1\nflags\t\t: none\n"
    assert processor(text) == "avx2 fma sse2"
    assert processor("Features : asimd fp") == "asimd fp"
    assert processor("vendor : unknown\n") == "unknown"
