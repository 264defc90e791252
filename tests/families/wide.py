"""A model large enough for its weights to be seen in a process's memory."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny_models import VOCAB_SIZE, tiny_tokenizer

MIB = 2**20


def save_wide_model(folder: Path, num_mib: int) -> Path:
    """A float32 Llama whose weights take about ``num_mib``, in layers of 12 MiB each."""
    config = LlamaConfig(
        vocab_size=VOCAB_SIZE,
        hidden_size=512,
        intermediate_size=1365,
        num_hidden_layers=num_mib // 12,
        num_attention_heads=8,
        max_position_embeddings=256,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
