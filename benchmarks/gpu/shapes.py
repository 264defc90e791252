"""Random models of the shapes that are measured, made on the device and written as loadable folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.shapes import DEMO


@dataclass(frozen=True)
class Shape:
    """A model without its weights, and the loads that it gets; ``config`` are fields of its config class.

    ``served_context`` bounds the KV cache of ``streams`` sequences to what fits beside the weights.
    """

    family: str
    dtype: str
    config: dict[str, Any]
    served_context: int = 2304
    streams: int = 64
    batches: tuple[int, ...] = (1, 2, 8, 64)
    num_checked: int = 16
    num_new: int = 128
    long_prompt: int = 2000


def _qwen2(
    vocab: int, hidden: int, inner: int, layers: int, heads: int, kv_heads: int, is_tied: bool
) -> dict[str, Any]:
    return {
        "vocab_size": vocab,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": is_tied,
    }


def _codegen(vocab: int, hidden: int, layers: int, heads: int, rotary: int) -> dict[str, Any]:
    sizes = {"vocab_size": vocab, "n_embd": hidden, "n_layer": layers, "n_head": heads, "rotary_dim": rotary}
    return {**sizes, "n_positions": 2048, "n_ctx": 2048, "tie_word_embeddings": False}


TINY: dict[str, Any] = {"served_context": 300, "streams": 4, "batches": (1, 4), "num_new": 16, "long_prompt": 280}
SHAPES = {
    "qwen2-0.5b": Shape("qwen2", "bfloat16", _qwen2(151_936, 896, 4864, 24, 14, 2, True)),
    "qwen2-1.5b": Shape("qwen2", "bfloat16", _qwen2(151_936, 1536, 8960, 28, 12, 2, True)),
    "qwen2-7b": Shape("qwen2", "bfloat16", _qwen2(152_064, 3584, 18_944, 28, 28, 4, False)),
    "codegen-6b": Shape("codegen", "float16", _codegen(51_200, 4096, 33, 16, 64), served_context=512),
    "qwen2-tiny": Shape("qwen2", "float32", _qwen2(8192, 64, 128, 2, 4, 2, True), **TINY),
    "codegen-tiny": Shape("codegen", "float32", _codegen(8192, 64, 2, 4, 8), **TINY),
}
GROUPS = {
    "full": ["qwen2-0.5b", "qwen2-1.5b", "qwen2-7b", "codegen-6b"],
    "tiny": ["qwen2-tiny", "codegen-tiny"],
}


def named(names: str) -> list[str]:
    """The shapes that ``--shapes`` means."""
    found = GROUPS.get(names) or names.split(",")
    if unknown := [name for name in found if name not in SHAPES]:
        raise SystemExit(f"error: no shape {unknown[0]!r}; there are {', '.join([*GROUPS, *SHAPES])}")
    return found


def write(name: str, folder: Path, device: str) -> dict[str, Any]:
    """Make the model on ``device`` and save it; nothing is done where it lies there already."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    if (folder / "complete").exists():
        return {"was_there": True}
    shape = SHAPES[name]
    torch.manual_seed(0)
    no_ends = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    config = AutoConfig.for_model(shape.family, **shape.config, **no_ends)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, shape.dtype))
    model.generation_config = GenerationConfig(pad_token_id=0)
    folder.mkdir(parents=True, exist_ok=True)
    AutoTokenizer.from_pretrained(DEMO).save_pretrained(folder)
    model.save_pretrained(folder)
    (folder / "complete").touch()
    return {"parameters": sum(weight.numel() for weight in model.parameters())}
