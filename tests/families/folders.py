"""Folders as each family's publisher lays them out: real classes, small random weights, real tokenizer files.

``FOLDERS[name](folder)`` writes one. Tokenizers are trained here and saved in the files that the
family comes with: ``vocab.json`` and ``merges.txt``, ``tokenizer.json``, or a sentencepiece model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    CodeGenConfig,
    Glm4Config,
    GlmConfig,
    GPT2Config,
    GPTBigCodeConfig,
    LlamaConfig,
    PreTrainedConfig,
    Qwen2Config,
    Starcoder2Config,
    XGLMConfig,
)

from tests.tiny_models import save_tiny_model, spread

NUM_POSITIONS = 1024
END = "<|endoftext|>"
FIM = ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>")
MASKS = ("<|mask:0|>", "<|mask:1|>", "<|mask:2|>", "<|mask:3|>", "<|endofmask|>")
GLM_CONTROL = (END, "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>")
LLAMA = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
GPT = {"n_positions": NUM_POSITIONS, "n_embd": 64, "n_layer": 2, "n_head": 4}
QWEN_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GLM_TEMPLATE = (
    "[gMASK]<sop>{% for message in messages %}<|{{ message['role'] }}|>\n{{ message['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)

REMOTE_CODE = """
from transformers import GlmConfig, GlmForCausalLM


class ChatGLMConfig(GlmConfig):
    model_type = "chatglm"


class ChatGLMForConditionalGeneration(GlmForCausalLM):
    config_class = ChatGLMConfig
"""


def codegen(folder: Path) -> Path:
    """CodeGen: GPT-2's files and no padding token; the vocabulary is smaller than the embedding."""
    vocab = write_bpe(folder, "CodeGenTokenizer", [END], unk_token=END, bos_token=END, eos_token=END)
    return write_model(
        folder, CodeGenConfig(**ids(vocab, END), vocab_size=400, n_ctx=NUM_POSITIONS, rotary_dim=8, **GPT)
    )


def incoder(folder: Path) -> Path:
    """InCoder: an XGLM in float16 whose tokenizer would remove the space of ``from .``, and starts every text."""
    vocab = train_bpe([END, "<pad>", "<unk>", *MASKS])
    vocab.post_processor = processors.TemplateProcessing(f"{END} $A", None, [(END, vocab.token_to_id(END))])
    save_fast(vocab, folder, bos_token=END, eos_token=END, pad_token="<pad>", clean_up_tokenization_spaces=True)
    sizes = {"d_model": 64, "ffn_dim": 128, "num_layers": 2, "attention_heads": 4}
    tokens = ids(vocab.get_vocab(), END) | {"pad_token_id": vocab.token_to_id("<pad>")}
    config = XGLMConfig(**tokens, vocab_size=400, max_position_embeddings=NUM_POSITIONS, **sizes)
    return write_model(folder, config, torch.float16)


def qwen2_instruct(folder: Path) -> Path:
    """Qwen2-Instruct: chat template, two end tokens, sampling by default."""
    special = [END, "<|im_start|>", "<|im_end|>"]
    options = {"eos_token": "<|im_end|>", "pad_token": END, "chat_template": QWEN_TEMPLATE}
    vocab = write_bpe(folder, "Qwen2Tokenizer", special, **options)
    config = Qwen2Config(
        vocab_size=400, num_key_value_heads=2, max_position_embeddings=NUM_POSITIONS, tie_word_embeddings=True, **LLAMA
    )
    write_model(folder, config)
    ends = [vocab["<|im_end|>"], vocab[END]]
    sampling = {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.1}
    write_json(folder / "generation_config.json", {"eos_token_id": ends, "pad_token_id": vocab[END], **sampling})
    return folder


def glm4(folder: Path, config_class: type[PreTrainedConfig] = Glm4Config, template: str | None = GLM_TEMPLATE) -> Path:
    """GLM-4 on transformers' own classes; three end tokens."""
    vocab = train_bpe([*GLM_CONTROL])
    start = [(token, vocab.token_to_id(token)) for token in ("[gMASK]", "<sop>")]
    vocab.post_processor = processors.TemplateProcessing("[gMASK] <sop> $A", None, start)
    save_fast(vocab, folder, eos_token=END, pad_token=END, chat_template=template)
    ends = [vocab.token_to_id(token) for token in (END, "<|user|>", "<|system|>")]
    sizes = {**LLAMA, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": NUM_POSITIONS}
    return write_model(folder, config_class(vocab_size=400, eos_token_id=ends, pad_token_id=ends[0], **sizes))


def glm(folder: Path) -> Path:
    """glm-4-9b-chat's native class."""
    return glm4(folder, GlmConfig)


def chatglm(folder: Path) -> Path:
    """ChatGLM-6B's kind: a model type that transformers does not have, code beside the weights, no template."""
    glm4(folder, GlmConfig, None)
    (folder / "modeling_chatglm.py").write_text(REMOTE_CODE, encoding="utf-8")
    config = json.loads((folder / "config.json").read_text())
    classes = {"AutoConfig": "ChatGLMConfig", "AutoModelForCausalLM": "ChatGLMForConditionalGeneration"}
    named = {auto: f"modeling_chatglm.{name}" for auto, name in classes.items()}
    own = {"model_type": "chatglm", "architectures": [classes["AutoModelForCausalLM"]], "auto_map": named}
    write_json(folder / "config.json", config | own)
    return folder


def llama(folder: Path) -> Path:
    """Llama: a sentencepiece model with no tokenizer.json and no padding token."""
    write_sentencepiece(folder / "tokenizer.model")
    write_tokenizer_config(folder, "LlamaTokenizer", bos_token="<s>", eos_token="</s>", add_bos_token=True)
    sizes = {**LLAMA, "num_key_value_heads": 2, "max_position_embeddings": NUM_POSITIONS}
    return write_model(folder, LlamaConfig(vocab_size=384, bos_token_id=1, eos_token_id=2, **sizes))


def gpt_sw3(folder: Path) -> Path:
    """GPT-SW3: a GPT-2 with a sentencepiece tokenizer that has no fast version."""
    write_sentencepiece(folder / "spiece.model")
    write_tokenizer_config(folder, "GPTSw3Tokenizer")
    return write_model(folder, GPT2Config(vocab_size=400, bos_token_id=1, eos_token_id=2, **GPT))


def gpt2(folder: Path) -> Path:
    """GPT-2: one special token for everything, none for padding."""
    vocab = write_bpe(folder, "GPT2Tokenizer", [END], unk_token=END, bos_token=END, eos_token=END)
    return write_model(folder, GPT2Config(**ids(vocab, END), vocab_size=400, **GPT))


def gpt_bigcode(folder: Path) -> Path:
    """StarCoder: multi-query attention, infilling tokens."""
    vocab = train_bpe([END, *FIM])
    save_fast(vocab, folder, "GPT2Tokenizer", unk_token=END, bos_token=END, eos_token=END)
    return write_model(folder, GPTBigCodeConfig(**ids(vocab.get_vocab(), END), vocab_size=400, multi_query=True, **GPT))


def starcoder2(folder: Path) -> Path:
    """StarCoder2: every layer sees 64 tokens back (4096 in the published models)."""
    vocab = write_bpe(folder, "GPT2Tokenizer", [END, *FIM], unk_token=END, bos_token=END, eos_token=END)
    sizes = {**LLAMA, "num_key_value_heads": 2, "max_position_embeddings": NUM_POSITIONS, "sliding_window": 64}
    return write_model(folder, Starcoder2Config(**ids(vocab, END), vocab_size=400, **sizes))


def bert(folder: Path) -> Path:
    return save_tiny_model("bert", folder)


def sentence(folder: Path) -> Path:
    return save_tiny_model("sentence", folder)


GENERATING: dict[str, Callable[[Path], Path]] = {
    "codegen": codegen,
    "incoder": incoder,
    "qwen2-instruct": qwen2_instruct,
    "glm4": glm4,
    "glm": glm,
    "chatglm": chatglm,
    "llama": llama,
    "gpt-sw3": gpt_sw3,
    "gpt2": gpt2,
    "gpt-bigcode": gpt_bigcode,
    "starcoder2": starcoder2,
}
FOLDERS = {**GENERATING, "bert": bert, "sentence": sentence}


def corpus() -> Iterable[str]:
    """What the tokenizers are trained on: this file."""
    return Path(__file__).read_text(encoding="utf-8").splitlines()


def train_bpe(special: list[str]) -> Tokenizer:
    """Byte-level BPE of 384 entries; its special tokens come first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=384, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    return tokenizer


def write_bpe(folder: Path, tokenizer_class: str, special: list[str], **options: Any) -> dict[str, int]:
    """``vocab.json``, ``merges.txt`` and ``tokenizer_config.json``; returns the vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_bpe(special)
    tokenizer.model.save(str(folder))
    vocab = tokenizer.get_vocab()
    added = {str(vocab[token]): {"content": token, "special": True} for token in special}
    write_tokenizer_config(folder, tokenizer_class, added_tokens_decoder=added, **options)
    return vocab


def save_fast(
    tokenizer: Tokenizer, folder: Path, tokenizer_class: str = "PreTrainedTokenizerFast", **options: Any
) -> None:
    """``tokenizer.json`` and ``tokenizer_config.json``."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_tokenizer_config(folder, tokenizer_class, **options)


def write_sentencepiece(path: Path) -> None:
    """A BPE model with byte fallback, as Llama's: 384 pieces, ``<unk>``, ``<s>``, ``</s>``, no padding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(corpus()),
            model_writer=file,
            model_type="bpe",
            vocab_size=384,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            minloglevel=2,
        )


def write_tokenizer_config(folder: Path, tokenizer_class: str, **options: Any) -> None:
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": tokenizer_class, **options})


def write_model(folder: Path, config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> Path:
    """Random weights of a fixed seed, spread so that greedy output varies."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype)
    spread(model)
    model.save_pretrained(folder)
    return folder


def ids(vocab: dict[str, int], end: str) -> dict[str, int]:
    """The config's token ids where one token starts and ends every text."""
    return {"bos_token_id": vocab[end], "eos_token_id": vocab[end]}


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")
