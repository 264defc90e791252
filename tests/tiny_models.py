"""Small models of the real architectures, with random weights and real tokenizer files.

``save_tiny_model(family, folder)`` writes a folder that ``from_pretrained`` loads as it would a
downloaded one: config, safetensors, generation config, tokenizer. Weights come from a fixed seed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CodeGenConfig,
    GlmConfig,
    GPT2Config,
    GPTBigCodeConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    XGLMConfig,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

VOCAB_SIZE = 384
MAX_POSITIONS = 1024
EOS, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = [EOS, PAD, "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_COMMON = {"vocab_size": VOCAB_SIZE, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def _qwen2(**changes: object) -> PreTrainedConfig:
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    values = {**_COMMON, **shape, "num_key_value_heads": 2, "max_position_embeddings": MAX_POSITIONS, **changes}
    return Qwen2Config(**values)


def _codegen() -> PreTrainedConfig:
    return CodeGenConfig(
        **_COMMON, n_positions=MAX_POSITIONS, n_ctx=MAX_POSITIONS, n_embd=64, n_layer=2, n_head=4, rotary_dim=8
    )


def _xglm() -> PreTrainedConfig:
    return XGLMConfig(
        **_COMMON, max_position_embeddings=MAX_POSITIONS, d_model=64, ffn_dim=128, num_layers=2, attention_heads=4
    )


def _gpt2() -> PreTrainedConfig:
    return GPT2Config(**_COMMON, n_positions=MAX_POSITIONS, n_embd=64, n_layer=2, n_head=4)


def _gpt_bigcode() -> PreTrainedConfig:
    return GPTBigCodeConfig(**_COMMON, n_positions=MAX_POSITIONS, n_embd=64, n_layer=2, n_head=4, multi_query=True)


def _llama() -> PreTrainedConfig:
    return LlamaConfig(**_COMMON, **_SMALL, num_key_value_heads=2)


def _glm() -> PreTrainedConfig:
    return GlmConfig(**_COMMON, **_SMALL, num_key_value_heads=2, head_dim=16)


def _mistral() -> PreTrainedConfig:
    return MistralConfig(**_COMMON, **_SMALL, num_key_value_heads=2, sliding_window=32)


def _mamba() -> PreTrainedConfig:
    return MambaConfig(**_COMMON, hidden_size=64, state_size=8, num_hidden_layers=2)


_SMALL = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": MAX_POSITIONS,
}
FAMILIES: dict[str, Callable[[], PreTrainedConfig]] = {
    "qwen2": _qwen2,
    "codegen": _codegen,
    "xglm": _xglm,
    "glm": _glm,
    "gpt2": _gpt2,
    "gpt_bigcode": _gpt_bigcode,
    "llama": _llama,
    "mistral": _mistral,
    "mamba": _mamba,
}
# Families whose cache the slot KV cache can stand in for.
SLOT_FAMILIES = ("qwen2", "codegen", "xglm", "glm", "gpt2", "gpt_bigcode", "llama")


def tiny_tokenizer(chat_template: str | None = CHATML) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``VOCAB_SIZE`` entries: any UTF-8 text makes the round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, pad_token=PAD, chat_template=chat_template
    )


def save_tiny_model(family: str, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """Write a loadable model folder of ``family`` and return it."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(FAMILIES[family](), dtype=dtype)
    _spread(model)
    model.generation_config.pad_token_id = 1
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    """Larger weights than the usual 0.02, so that greedy output varies instead of repeating a token."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                weight.mul_(4)
