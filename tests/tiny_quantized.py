"""Tiny models as their quantizers publish them; ``quantized_layouts`` has the layouts.

``save_quantized(folder, layout)`` writes the folder and returns the weights that its tensors mean, by the names of
plain ones.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from tests.quantized_layouts import Layout, Tensors
from tests.tiny_models import FAMILIES, spread, tiny_tokenizer


def config_of(family: str) -> PreTrainedConfig:
    config = FAMILIES[family]()
    config.hidden_size, config.intermediate_size = 128, 256
    if getattr(config, "head_dim", None):
        config.head_dim = config.hidden_size // config.num_attention_heads
    return config


def save_quantized(
    folder: Path, layout: Layout, family: str = "llama", *, dtype: torch.dtype = torch.float16, num_files: int = 1
) -> Tensors:
    torch.manual_seed(11)
    config = config_of(family)
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    spread(model)
    stored: Tensors = dict(layout.extra)
    meant: Tensors = {}
    for name, weight in model.state_dict().items():
        is_linear = weight.ndim == 2 and "embed" not in name and not any(part in name for part in layout.left_out)
        if is_linear and ("lm_head" not in name or layout.with_head):
            parts, meant[name] = layout.pack(weight)
            stored |= {name.removesuffix(".weight") + end: part for end, part in parts.items()}
        else:
            stored[name] = weight.to(dtype)
            meant[name] = stored[name].float()
    write_folder(folder, config, dict(layout.config), stored, dtype, num_files)
    return meant


def write_folder(
    folder: Path,
    config: PreTrainedConfig,
    quantization: dict[str, Any],
    stored: Tensors,
    dtype: torch.dtype,
    num_files: int,
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    told = config.to_dict() | {
        "architectures": [type(AutoModelForCausalLM.from_config(config)).__name__],
        "dtype": str(dtype).removeprefix("torch."),
        "quantization_config": quantization,
    }
    (folder / "config.json").write_text(json.dumps(told))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, "pad_token_id": 1, "top_k": 7}))
    tiny_tokenizer().save_pretrained(folder)
    contiguous = {name: tensor.contiguous().clone() for name, tensor in stored.items()}
    if num_files == 1:
        save_file(contiguous, folder / "model.safetensors", metadata={"format": "pt"})
        return
    # Parts of one layer lie in different files, as a cut by size makes them.
    files = {name: f"model-{i % num_files + 1:05}-of-{num_files:05}.safetensors" for i, name in enumerate(stored)}
    for file in sorted(set(files.values())):
        part = {name: tensor for name, tensor in contiguous.items() if files[name] == file}
        save_file(part, folder / file, metadata={"format": "pt"})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))


def reference_model(meant: Tensors, family: str = "llama") -> Any:
    """The plain model of these weights, in float32."""
    config = config_of(family)
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(meant, strict=True)
    return model.eval()


def save_experts(folder: Path) -> Tensors:
    """gpt-oss, whose experts are in MXFP4: ``(experts, out, groups, 16)`` pairs, the first code in the low half."""
    torch.manual_seed(3)
    config = FAMILIES["gpt_oss"]()
    config.tie_word_embeddings = False
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    table = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])
    stored: Tensors = {}
    meant: Tensors = {}
    for name, weight in model.state_dict().items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            stored[name] = weight.to(torch.bfloat16)
            meant[name] = stored[name].float()
            continue
        num_experts, num_in, num_out = weight.shape
        grouped = weight.transpose(1, 2).reshape(num_experts, num_out, num_in // 32, 32)
        exponents = (grouped.abs().amax(-1) / 6).log2().ceil()
        scaled = grouped / exponents.exp2()[..., None]
        codes = (scaled.abs()[..., None] - table).abs().argmin(-1)
        values = table[codes] * scaled.sign()
        codes = codes + 8 * (scaled < 0)
        stored[f"{name}_blocks"] = (codes[..., 0::2] | (codes[..., 1::2] << 4)).to(torch.uint8)
        stored[f"{name}_scales"] = (exponents + 127).to(torch.uint8)
        decoded = (values * exponents.exp2()[..., None]).view(num_experts, num_out, num_in)
        meant[name] = decoded.transpose(1, 2).contiguous()
    quantization = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}
    write_folder(folder, config, quantization, stored, torch.bfloat16, 1)
    return meant
