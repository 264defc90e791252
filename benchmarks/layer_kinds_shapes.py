"""Random models of some 10M parameters in the shapes of today's families: windows, sinks and experts, states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.shapes import DEMO, FOLDER

SIZES = {
    "vocab_size": 8192,
    "hidden_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 8192,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": 0,
}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma3-10m": (
        "gemma3_text",
        {"num_hidden_layers": 8, "intermediate_size": 1024, "query_pre_attn_scalar": 64, "sliding_window": 512},
    ),
    "gpt-oss-10m": (
        "gpt_oss",
        {
            "num_hidden_layers": 4,
            "intermediate_size": 256,
            "num_local_experts": 8,
            "num_experts_per_tok": 2,
            "sliding_window": 128,
        },
    ),
    "qwen3.5-10m": (
        "qwen3_5_text",
        {
            "num_hidden_layers": 8,
            "intermediate_size": 896,
            "linear_num_key_heads": 4,
            "linear_num_value_heads": 8,
            "linear_key_head_dim": 32,
            "linear_value_head_dim": 32,
            "tie_word_embeddings": True,
        },
    ),
}


def kind_folder(kind: str) -> Path:
    """A loadable folder with random weights; its generation config names no end token. Written once."""
    folder = FOLDER / kind
    if not (folder / "model.safetensors").exists():
        write(kind, folder)
    return folder


def write(kind: str, folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    model_type, sizes = KINDS[kind]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, **{**SIZES, **sizes})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.generation_config = GenerationConfig(pad_token_id=0)
    folder.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(DEMO).save_pretrained(folder)
    model.save_pretrained(folder)
