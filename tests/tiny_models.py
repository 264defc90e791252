"""Small models of the real architectures, with random weights and real tokenizer files.

``save_tiny_model(family, folder)`` writes a folder that ``from_pretrained`` loads as it would a
downloaded one: config, safetensors, generation config, tokenizer. Weights come from a fixed seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertTokenizer,
    CodeGenConfig,
    GlmConfig,
    GPT2Config,
    GPTBigCodeConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RwkvConfig,
    XGLMConfig,
)
from transformers.models.auto.modeling_auto import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from tests.tiny_encoders import read_name, save_tiny_encoder
from tests.tiny_seq2seq import SEQ2SEQ, save_tiny_seq2seq
from tests.tiny_states import STATEFUL
from tests.tiny_windowed import WINDOWED
from tools.coverage.tiny_configs import tiny_config

VOCAB_SIZE = 384
MAX_POSITIONS = 1024
EOS, PAD = "<|endoftext|>", "<|pad|>"
SPECIAL = [EOS, PAD, "<|im_start|>", "<|im_end|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"]
BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
BERT_POSITIONS = 64
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


def _rwkv() -> PreTrainedConfig:
    return RwkvConfig(**_COMMON, hidden_size=64, attention_hidden_size=64, num_hidden_layers=2, context_length=1024)


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
    "rwkv": _rwkv,
}
# Sized as `make coverage` has them.
COVERED = (
    *("deepseek_v3", "glm4_moe", "qwen3", "qwen3_moe"),
    *("plbart", "mvp", "trocr", "blenderbot-small", "bloom", "gpt_neo", "roberta", "phimoe"),
)
FAMILIES |= {name: partial(tiny_config, name) for name in COVERED}
FAMILIES |= WINDOWED | STATEFUL
# Encoders; "sentence" says in sentence-transformers' files how its vectors are made, "encoder" does not.
ENCODERS = ("bert", "encoder", "sentence")
# Control tokens of the infilling families; InCoder is an XGLM, each other one gets a small Llama.
INFILL_TOKENS: dict[str, tuple[str, ...]] = {
    "incoder": ("<|mask:0|>", "<|mask:1|>", "<|mask:2|>", "<|mask:3|>", "<|endofmask|>"),
    "qwen-coder": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"),
    "codegemma": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>"),
    "starcoder": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>"),
    "starcoder2": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<repo_name>", "<file_sep>"),
    "mellum": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<filename>", "<gh_stars>", "<reponame>", "<think>"),
    "granite-code": ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<filename>", "<gh_stars>", "<reponame>"),
    "granite4": ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|filename|>", "<|end_of_text|>"),
    "santacoder": ("<fim-prefix>", "<fim-suffix>", "<fim-middle>"),
    "seed-coder": ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>"),
    "codestral": ("[PREFIX]", "[SUFFIX]", "[MIDDLE]"),
    "glm": ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", "<|user|>", "<|assistant|>", "<think>"),
    "codegeex4": ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>", "<|user|>", "<|assistant|>"),
    "aixcoder": ("\u2581<AIX-SPAN-PRE>", "\u2581<AIX-SPAN-POST>", "\u2581<AIX-SPAN-MIDDLE>"),
    "codegen2": ("<mask_1>", "<mask_2>", "<mask_3>", "<sep>", "<eom>"),
    "deepseek-coder": ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    "code-llama": ("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", "\u2581<EOT>"),
}
# A Llama without any of them.
CONTROL_TOKENS = {**INFILL_TOKENS, "plain": ()}
# Models under another name: InCoder's architecture, ChatGLM's, whose files hold no chat template, and Llamas with
# what trained models have and random weights lack: inputs far larger than the rest, likeliest tokens that nearly tie.
RENAMED = {"incoder": _xglm, "chatglm": _glm, "outliers": _llama, "ties": _llama}
OUTLIERS, OUTLIER_FACTOR = [5, 23, 42], 60.0
# Of the larger logit, between tokens 2i and 2i + 1.
TIE = 1e-4
WITHOUT_TEMPLATE = ("chatglm",)
# Families whose cache the slot KV cache can stand in for.
SLOT_FAMILIES = ("qwen2", "codegen", "xglm", "glm", "gpt2", "gpt_bigcode", "llama")


def tiny_tokenizer(chat_template: str | None = CHATML, special: list[str] = SPECIAL) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of ``VOCAB_SIZE`` entries: any UTF-8 text makes the round trip."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=special,
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
    if (of_task := read_name(family)) is not None:
        return save_tiny_encoder(*of_task, folder, Path(__file__).read_text(encoding="utf-8"))
    if family in SEQ2SEQ:
        return save_tiny_seq2seq(family, folder, Path(__file__).read_text(encoding="utf-8"))
    if family in ENCODERS:
        return _save_encoder(family, folder, dtype)
    config = {**FAMILIES, **RENAMED}.get(family, _llama)()
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    spread(model)
    if family == "outliers":
        _plant_outliers(model)
    if family == "ties":
        _plant_ties(model)
    model.generation_config.pad_token_id = 1
    model.save_pretrained(folder)
    special = [EOS, PAD, *CONTROL_TOKENS[family]] if family in CONTROL_TOKENS else SPECIAL
    template = None if family in WITHOUT_TEMPLATE else CHATML
    tiny_tokenizer(template, special).save_pretrained(folder)
    return folder


def tiny_bert_tokenizer() -> BertTokenizer:
    """WordPiece over the words of this file, with every letter, so that little is unknown."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB_SIZE, special_tokens=BERT_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([Path(__file__).read_text(encoding="utf-8")], trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(), model_max_length=BERT_POSITIONS)


def _save_encoder(family: str, folder: Path, dtype: torch.dtype) -> Path:
    tokenizer = tiny_bert_tokenizer()
    config = BertConfig(**{**_SMALL, "vocab_size": len(tokenizer), "max_position_embeddings": BERT_POSITIONS})
    auto = AutoModelForMaskedLM if family == "bert" else AutoModel
    model = auto.from_config(config, dtype=dtype)
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if family == "sentence":
        write_sentence_files(folder)
    return folder


def write_sentence_files(folder: Path, mode: str = "cls_token", *steps: str) -> None:
    """sentence-transformers' files: cls pooling, normalised, 40 tokens at most; ``steps`` replace the last."""
    names = ["Transformer", "Pooling", *(steps or ("Normalize",))]
    paths = ["", "1_Pooling", *(f"{i}_{name}" for i, name in enumerate(names[2:], 2))]
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{name}"}
        for i, (name, path) in enumerate(zip(names, paths, strict=True))
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    flags = {f"pooling_mode_{one}": one == mode for one in ("cls_token", "mean_tokens", "max_tokens", "lasttoken")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 64, **flags}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 40, "do_lower_case": False}))


def spread(model: torch.nn.Module) -> None:
    """Larger weights than the usual 0.02, so that greedy output varies instead of repeating a token."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                weight.mul_(4)


@torch.no_grad()
def _plant_outliers(model: torch.nn.Module) -> None:
    """A few channels behind each norm that are much larger than the rest, and carry no more than the rest."""
    norms = [module for name, module in model.named_modules() if name.endswith("norm")]
    for norm in norms:
        norm.weight[OUTLIERS] *= OUTLIER_FACTOR
    readers = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "lm_head")
    for name, module in model.named_modules():
        if name.endswith(readers):
            module.weight[:, OUTLIERS] /= OUTLIER_FACTOR


@torch.no_grad()
def _plant_ties(model: torch.nn.Module) -> None:
    """Every odd token's logit is that of the token before it, but for a share that rounding must not swallow."""
    rows = model.lm_head.weight
    rows[1::2] = rows[::2] * (1 - TIE)
