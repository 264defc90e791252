"""Small LoRA adapters in PEFT's form for the tiny models, and the same changes merged into a model's own weights."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.pytorch_utils import Conv1D

TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "mistral": ("q_proj", "v_proj", "down_proj"),
    "qwen2": ("q_proj", "v_proj", "down_proj"),
    "gpt2": ("c_attn", "c_fc"),
    "qwen3_moe": ("q_proj", "k_proj", "o_proj"),
}


def save_adapter(
    folder: Path, base: Path, family: str, *, seed: int, rank: int = 4, alpha: float = 8, **config: object
) -> Path:
    """An adapter of random numbers, large enough that the greedy text is another one."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base)
    tensors = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and name.endswith(TARGETS[family]):
            num_out, num_in = module.weight.shape[::-1] if isinstance(module, Conv1D) else module.weight.shape
            down = torch.randn(rank, num_in, generator=generator) / math.sqrt(num_in)
            up = torch.randn(num_out, rank, generator=generator) * 0.3
            tensors[f"base_model.model.{name}.lora_A.weight"] = down
            tensors[f"base_model.model.{name}.lora_B.weight"] = up
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    told = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": list(TARGETS[family]),
        "bias": "none",
        "fan_in_fan_out": family == "gpt2",
        "base_model_name_or_path": str(base),
        **config,
    }
    (folder / "adapter_config.json").write_text(json.dumps(told))
    return folder


def merged(base: Path, adapter: Path) -> PreTrainedModel:
    """The model with the adapter's changes added to its weights, as PEFT's ``merge_and_unload`` does."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    told = json.loads((adapter / "adapter_config.json").read_text())
    tensors = load_file(adapter / "adapter_model.safetensors")
    scale = told["lora_alpha"] / (math.sqrt(told["r"]) if told.get("use_rslora") else told["r"])
    for key, down in tensors.items():
        if key.endswith("lora_A.weight"):
            up = tensors[key.replace("lora_A", "lora_B")]
            module = model.get_submodule(key.removeprefix("base_model.model.").removesuffix(".lora_A.weight"))
            change = scale * (up.float() @ down.float())
            with torch.no_grad():
                module.weight += change.t() if isinstance(module, Conv1D) else change
    return model
