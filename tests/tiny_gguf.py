"""Tiny models as GGUF files, written by ggml's own package: weights of a fixed seed in blocks of a chosen kind.

``write_gguf(path, family, kinds)`` writes what llama.cpp's converter would: Llama's queries and keys with rows in
pairs, Qwen2's as they are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import PreTrainedConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from tests.tiny_models import CHATML, FAMILIES, tiny_tokenizer

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
CONTROL, NORMAL = 3, 1
HIDDEN = 256


def write_gguf(path: Path, family: str, kinds: Mapping[str, str], **metadata: int) -> Path:
    """``kinds``: ggml's type by the end of a tensor's name, ``""`` for all other matrices. Norms and biases are F32."""
    config = FAMILIES[family]()
    config.hidden_size, config.intermediate_size = HIDDEN, 2 * HIDDEN
    if family == "llama":
        config.head_dim = HIDDEN // config.num_attention_heads
    torch.manual_seed(5)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    writer = gguf.GGUFWriter(path, family)
    add_metadata(writer, config, metadata)
    add_tokenizer(writer)
    for name, weight in model.state_dict().items():
        add_tensor(writer, name, weight, kinds, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_metadata(writer: gguf.GGUFWriter, config: PreTrainedConfig, changes: Mapping[str, int]) -> None:
    values = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.dimension_count": config.hidden_size // config.num_attention_heads,
        **changes,
    }
    for name, value in values.items():
        writer.add_uint32(f"{writer.arch}.{name}", value)
    writer.add_float32(f"{writer.arch}.attention.layer_norm_rms_epsilon", config.rms_norm_eps)
    writer.add_float32(f"{writer.arch}.rope.freq_base", config.rope_parameters["rope_theta"])
    writer.add_uint32(f"{writer.arch}.vocab_size", config.vocab_size)


def add_tokenizer(writer: gguf.GGUFWriter) -> None:
    tokenizer = tiny_tokenizer()
    told, vocab = json.loads(tokenizer.backend_tokenizer.to_str()), tokenizer.get_vocab()
    special = {token["content"] for token in told["added_tokens"]}
    tokens = sorted(vocab, key=vocab.get)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in special else NORMAL for token in tokens])
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in told["model"]["merges"]])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(1)
    writer.add_add_bos_token(False)
    writer.add_chat_template(CHATML)


def add_tensor(
    writer: gguf.GGUFWriter, name: str, weight: torch.Tensor, kinds: Mapping[str, str], config: PreTrainedConfig
) -> None:
    module, _, suffix = name.rpartition(".")
    if module in OUTER:
        short = OUTER[module]
    else:
        _, _, number, inner = module.split(".", 3)
        short = f"blk.{number}.{NAMES[inner]}"
    values = weight.float().numpy()
    if writer.arch == "llama" and short.endswith(("attn_q", "attn_k")):
        heads = config.num_attention_heads if short.endswith("attn_q") else config.num_key_value_heads
        values = values.reshape(heads, 2, -1, *values.shape[1:]).swapaxes(1, 2).reshape(values.shape)
    kind = next((kinds[end] for end in kinds if end in (short, short.rpartition(".")[2])), kinds[""])
    if values.ndim == 1:
        kind = "F32"
    number = gguf.GGMLQuantizationType[kind]
    writer.add_tensor(f"{short}.{suffix}", as_blocks(np.ascontiguousarray(values), kind), raw_dtype=number)


def as_blocks(values: np.ndarray, kind: str) -> np.ndarray:
    """ggml's package rounds to most kinds; to Q4_K only llama.cpp does, so its blocks are made of random bytes."""
    number = gguf.GGMLQuantizationType[kind]
    if kind != "Q4_K":
        return gguf.quants.quantize(values, number)
    num_values, num_bytes = gguf.GGML_QUANT_SIZES[number]
    generator = np.random.default_rng(values.size)
    raw = generator.integers(0, 256, (values.size // num_values, num_bytes), dtype=np.uint8)
    raw[:, :2] = np.full(len(raw), 0.0002, np.float16).view(np.uint8).reshape(-1, 2)
    raw[:, 2:4] = np.full(len(raw), 0.0015, np.float16).view(np.uint8).reshape(-1, 2)
    return raw.reshape(values.shape[0], -1)
