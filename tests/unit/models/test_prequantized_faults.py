"""What is not read of quantised checkpoints, and what can be wrong with one, is a line that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from app.core.errors import ModelLoadError
from app.models.checkpoint.prequantized.coded_folder import check_coded, quantization_of, read_coded
from app.models.checkpoint.prequantized.quantization_recipe import recipe_of
from tests.quantized_layouts import LAYOUTS, Tensors, gptq
from tests.tiny_quantized import save_quantized

# A layout, and what is wrong with a layer in it.
Fault = tuple[str, Callable[[Tensors], Tensors]]
COMPRESSED = LAYOUTS["packed integers"].config


def scheme(**changes: Any) -> dict[str, Any]:
    weights = COMPRESSED["config_groups"]["group_0"]["weights"]
    return {**COMPRESSED, "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights | changes}}}


UNSERVED = {
    "another method": ({"quant_method": "hqq"}, "quant_method 'hqq'"),
    "no method": ({"bits": 4}, "quant_method None"),
    "a method that is no text": ({"quant_method": {"a": 1}}, "quant_method {'a': 1}"),
    "AWQ's second layout": ({**LAYOUTS["awq"].config, "version": "GEMV"}, "AWQ in the layout 'gemv'"),
    "AWQ's fast layout": ({**LAYOUTS["awq"].config, "version": "gemv_fast"}, "AWQ in the layout 'gemv_fast'"),
    "AWQ of its authors": ({**LAYOUTS["awq"].config, "backend": "llm-awq"}, "AWQ in the layout 'llm-awq'"),
    "AWQ with 3 bits": ({**LAYOUTS["awq"].config, "bits": 3}, "AWQ with 3 bits"),
    "GPTQ with 3 bits": ({**LAYOUTS["gptq"].config, "bits": 3}, "GPTQ with 3 bits"),
    "Marlin": ({**LAYOUTS["gptq"].config, "checkpoint_format": "marlin"}, "GPTQ in the layout 'marlin'"),
    "Marlin by its flag": ({**LAYOUTS["gptq"].config, "is_marlin_format": True}, "GPTQ in the layout 'marlin'"),
    "words of 16 bits": ({**LAYOUTS["gptq"].config, "pack_dtype": "int16"}, "GPTQ in words of 'int16'"),
    "NVFP4": ({**COMPRESSED, "format": "nvfp4-pack-quantized"}, "the format 'nvfp4-pack-quantized'"),
    "sparse weights": ({**COMPRESSED, "sparsity_config": {"format": "sparse-24-bitmask"}}, "with sparse weights"),
    "rotations": ({**COMPRESSED, "transform_config": {"config_groups": {"u": {}}}}, "with rotated weights"),
    "presets": ({**COMPRESSED, "config_groups": {"W8A8": ["Linear"]}}, "without a table config_groups"),
    "3 bits": (scheme(num_bits=3), "weights of 3 bits, type 'int'"),
    "4-bit floats": (scheme(type="float"), "weights of 4 bits, type 'float'"),
    "a scale for each head": (scheme(strategy="attn_head"), "a scale for each 'attn_head'"),
    "experts in FP4": ({"quant_method": "fp8", "expert_dtype": "fp4"}, "FP8 with experts in 'fp4'"),
    "E5M2": ({"quant_method": "fp8", "fmt": "e5m2"}, "FP8 in 'e5m2'"),
    "af4": ({**LAYOUTS["nf4"].config, "bnb_4bit_quant_type": "af4"}, "bitsandbytes' 'af4'"),
}
ABSURD = {
    "no inputs in a group": ({**LAYOUTS["awq"].config, "group_size": 0}, "the group size 0"),
    "a group size of words": ({**LAYOUTS["gptq"].config, "group_size": "many" * 100}, "the group size 'many"),
    "a vast group": (scheme(group_size=2**70), "the group size 11805"),
    "a block of one number": ({"quant_method": "fp8", "weight_block_size": [128]}, "the block [128]"),
    "a block of nothing": ({"quant_method": "fp8", "weight_block_size": [0, 128]}, "the block [0, 128]"),
}


@pytest.mark.parametrize("config", [one for one, _ in UNSERVED.values()], ids=list(UNSERVED))
def test_a_variant_that_is_not_read_is_named_with_what_to_do(config):
    wanted = next(words for one, words in UNSERVED.values() if one is config)
    line = line_of(lambda: recipe_of(dict(config)))
    assert wanted in line
    assert "not read here: take its unquantised weights, or a copy in awq, gptq," in line


@pytest.mark.parametrize(("config", "wanted"), ABSURD.values(), ids=ABSURD)
def test_sizes_that_cannot_be_meant_are_refused(config, wanted):
    line = line_of(lambda: recipe_of(dict(config)))
    assert f"its quantization_config has {wanted}" in line
    assert len(line) < 200


def line_of(act: Any) -> str:
    with pytest.raises(ModelLoadError) as raised:
        act()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def folder_with(folder: Path, config: Any, tensors: Tensors, more: Tensors | None = None) -> Path:
    (folder / "config.json").write_text(json.dumps({"quantization_config": dict(config)}))
    save_file({name: one.contiguous() for name, one in tensors.items()}, folder / "a.safetensors")
    if more:
        save_file({name: one.contiguous() for name, one in more.items()}, folder / "b.safetensors")
    return folder


def layer_of(name: str, shape: tuple[int, int] = (128, 128)) -> Tensors:
    """One layer ``m.q`` in a layout."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return {f"m.q{end}": part for end, part in LAYOUTS[name].pack(weight)[0].items()}


def fault_of(folder: Path, config: Any, tensors: Tensors, more: Tensors | None = None) -> str:
    def read() -> None:
        path = folder_with(folder, config, tensors, more)
        check_coded(read_coded(path, quantization_of(path) or {}))

    return line_of(read)


def without(name: str, end: str) -> Fault:
    return name, lambda tensors: {key: one for key, one in tensors.items() if key != f"m.q{end}"}


def changed(name: str, end: str, change: Any) -> Fault:
    return name, lambda tensors: tensors | {f"m.q{end}": change(tensors[f"m.q{end}"])}


def state(**changes: Any) -> Any:
    def change(old: torch.Tensor) -> torch.Tensor:
        told = json.loads(bytes(old.numpy())) | changes
        return torch.tensor(list(json.dumps(told).encode()), dtype=torch.uint8)

    return change


NF4_STATE = ".weight.quant_state.bitsandbytes__nf4"
ACT_ORDER = "gptq, asymmetric, in the order of activations"
FAULTS = {
    "no scales": (without("awq", ".scales"), "m.q has no scales"),
    "no zeros": (without("gptq", ".qzeros"), "m.q has no qzeros"),
    "no codes": (without("gptq", ".qweight"), "are not in gptq, as its quantization_config says"),
    "no scale of floats": (without("blocks of floats", ".weight_scale_inv"), "are not in fp8"),
    "no table": (without("nf4", ".weight.quant_map"), "m.q has no weight.quant_map"),
    "no state": (without("nf4", NF4_STATE), "do not fit each other: quant_map [16]"),
    "no inner scales": (without("nf4, nested", ".weight.nested_absmax"), "m.q has no weight.nested_absmax"),
    "no shape": (without("packed integers", ".weight_shape"), "m.q has no weight_shape"),
    "codes of another dtype": (
        changed("awq", ".qweight", lambda one: one.long()),
        "m.q.qweight is in 'I64', not in I32",
    ),
    "scales of whole numbers": (changed("gptq", ".scales", lambda one: one.int()), "m.q.scales is in 'I32'"),
    "too few scales": (changed("awq", ".scales", lambda one: one[:, :-8]), "do not fit each other: qweight [128, 16]"),
    "flat codes": (changed("awq", ".qweight", lambda one: one.reshape(-1)), "do not fit each other: qweight [2048]"),
    "nothing": (changed("awq", ".qweight", lambda one: one[:0]), "do not fit each other: qweight [0, 16]"),
    "another group size": (
        changed("gptq", ".scales", lambda one: one[:1]),
        "do not fit each other: qweight [16, 128], qzeros [2, 16], scales [1, 128]",
    ),
    "a group too high": (changed(ACT_ORDER, ".g_idx", lambda one: one + 1), "m.q speaks of group 2, there are 2"),
    "a group too low": (changed(ACT_ORDER, ".g_idx", lambda one: one - 1), "m.q speaks of group -1, there are 2"),
    "too few groups": (changed(ACT_ORDER, ".g_idx", lambda one: one[:-8]), "scales [2, 128], g_idx [120]"),
    "no groups at all": (changed(ACT_ORDER, ".g_idx", lambda one: one[:0]), "do not fit each other: g_idx [0]"),
    "a shape of another": (
        changed("packed integers", ".weight_shape", lambda one: one * 2),
        "m.q.weight_shape says 256 x 256, weight_packed is [128, 16]",
    ),
    "a negative shape": (changed("packed integers", ".weight_shape", lambda one: -one), "says -128 x -128"),
    "a vast shape": (
        changed("packed integers", ".weight_shape", lambda one: one * 2**40),
        "weight_packed is [128, 16]",
    ),
    "three scales": (changed("bytes", ".weight_scale", lambda one: one[:3]), "weight [128, 128], weight_scale [3, 1]"),
    "blocks of another size": (
        changed("blocks of floats", ".weight_scale_inv", lambda one: one[:1]),
        "weight [128, 128], weight_scale_inv [1, 2]",
    ),
    "weights that were not coded": (
        changed("floats", ".weight", lambda one: one.float()),
        "m.q.weight is in 'F32', not in I8 or F8_E4M3",
    ),
    "a bias of codes": (changed("floats", ".weight", lambda one: one[0]), "do not fit each other: weight [128]"),
    "no JSON": (changed("nf4", NF4_STATE, lambda one: one[:-2]), "is no state of bitsandbytes'"),
    "a state of another shape": (changed("nf4", NF4_STATE, state(shape=[128, 2**30])), "do not fit each other"),
    "a state of no shape": (changed("nf4", NF4_STATE, state(shape=None)), "is no state of bitsandbytes'"),
    "a block of one": (changed("nf4", NF4_STATE, state(blocksize=1)), "is no state of bitsandbytes'"),
    "a block of a fraction": (changed("nf4", NF4_STATE, state(blocksize=64.5)), "is no state of bitsandbytes'"),
    "an infinite offset": (changed("nf4", NF4_STATE, state(nested_offset=1e999)), "is no state of bitsandbytes'"),
    "a vast state": (changed("nf4", NF4_STATE, lambda one: one.repeat(500)), "is no state of bitsandbytes'"),
    "a table of NaN": (changed("nf4", ".weight.quant_map", lambda one: one * torch.nan), "holds NaN or infinity"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_tensors_that_do_not_fit_are_one_line_that_names_the_layer(tmp_path, name):
    (layout, change), wanted = FAULTS[name]
    line = fault_of(tmp_path, LAYOUTS[layout].config, change(layer_of(layout)))
    assert wanted in line
    assert len(line) < 500


def test_a_tensor_that_is_there_twice_is_named_with_its_files(tmp_path):
    tensors = layer_of("awq")
    line = fault_of(tmp_path, LAYOUTS["awq"].config, tensors, {"m.q.scales": tensors["m.q.scales"]})
    assert "hold m.q.scales twice: in a.safetensors and b.safetensors" in line


def test_files_beside_the_whole_model_are_not_read(tmp_path):
    tensors = layer_of("awq")
    path = folder_with(tmp_path, LAYOUTS["awq"].config, tensors)
    (path / "a.safetensors").rename(path / "model.safetensors")
    save_file({"layers.0.wq.qweight": torch.ones(2), "m.q.scales": torch.ones(2)}, path / "consolidated.safetensors")
    coded = read_coded(path, quantization_of(path) or {})
    assert (set(coded.weights), coded.plain) == ({"m.q.weight"}, {})


def test_a_layer_that_is_there_in_two_forms_is_refused(tmp_path):
    line = fault_of(tmp_path, LAYOUTS["awq"].config, {**layer_of("awq"), "m.q.weight": torch.ones(128, 128)})
    assert "hold m.q.weight both quantised and plain" in line


@pytest.mark.parametrize(
    ("layout", "name", "tensor"),
    [
        ("awq", "m.act.scales", torch.ones(4)),
        ("packed integers", "m.k.weight_global_scale", torch.ones(1)),
        ("floats", "m.experts.gate_up_proj_scale_inv", torch.ones(1)),
        ("floats", "m.experts.gate_up_proj", torch.ones(2, 4, 4).to(torch.float8_e4m3fn)),
        ("bytes", "m.k.weight", torch.ones(4, 4, dtype=torch.int8)),
    ],
)
def test_what_would_be_left_out_of_the_weights_is_refused(tmp_path, layout, name, tensor):
    line = fault_of(tmp_path, LAYOUTS[layout].config, {**layer_of(layout), name: tensor})
    assert f"hold {name} in" in line


def test_scales_of_inputs_and_of_the_cache_are_no_weights(tmp_path):
    more = {"m.q.input_scale": torch.ones(1), "m.attn.k_scale": torch.ones(1), "m.norm.weight": torch.ones(4)}
    path = folder_with(tmp_path, LAYOUTS["floats"].config, {**layer_of("floats"), **more})
    assert set(read_coded(path, quantization_of(path) or {}).plain) == {"m.norm.weight"}


def test_what_the_config_says_of_bits_and_groups_must_hold(tmp_path):
    eight = {f"m.q{end}": part for end, part in gptq(8).pack(torch.ones(64, 64))[0].items()}
    line = fault_of(tmp_path, LAYOUTS["gptq"].config, eight)
    assert "m.q has 8 bits by its tensors' shapes, not 4" in line
    line = fault_of(tmp_path, {**LAYOUTS["gptq"].config, "group_size": 16}, layer_of("gptq"))
    assert "m.q has 2 groups for 128 inputs, its quantization_config says 16 each" in line
    rules = {**LAYOUTS["gptq"].config, "dynamic": {"+:.*q": {"bits": 8}}}
    path = folder_with(tmp_path, rules, eight)
    [weight] = read_coded(path, rules).weights.values()
    assert weight.num_bits == 8


@pytest.mark.slow
def test_a_folder_that_is_cut_short_is_told_before_anything_is_decoded(tmp_path):
    from app.core.settings import load_settings
    from app.models.checkpoint.loader import load_checkpoint

    save_quantized(tmp_path, LAYOUTS["awq"])
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    line = line_of(lambda: load_checkpoint(load_settings({"FORKLIFT_MODEL": str(tmp_path)}), lambda _: None))
    assert "are cut short" in line
