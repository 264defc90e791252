"""Small encoders with heads for the tasks of texts, with random weights: of many families, and of a decoder.

``save_tiny_model("bert-classify", folder)`` comes here; each family has a tokenizer as its publisher's is made.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AlbertConfig,
    BartConfig,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    ElectraConfig,
    ModernBertConfig,
    MPNetConfig,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from app.core.tasks.task_table import TASKS, Task

NUM_TOKENS = 384
MOST_TOKENS = 64
TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
LABELS: dict[Task, list[str]] = {
    "classify": ["bad", "fair", "good"],
    "rerank": ["LABEL_0"],
    "zero-shot": ["contradiction", "neutral", "entailment"],
    "entities": TAGS,
}
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
BART_LAYERS = {"layers": 2, "attention_heads": 4, "ffn_dim": 128}
# In the order of their ids: start, padding, end, unknown, mask.
MARKS = {
    "roberta": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "modernbert": ["[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"],
    "qwen2": ["<|start|>", "<|pad|>", "<|endoftext|>", "<|unk|>", "<|mask|>"],
}
# Whose tokenizers are made alike.
ALIKE = {"xlmr": "roberta", "bart": "roberta", "mpnet": "roberta", "deberta": "modernbert"}
WORD_PIECES = ("bert", "electra", "albert")
FAMILY_NAMES = (*WORD_PIECES, *MARKS, *ALIKE)


def read_name(name: str) -> tuple[str, Task] | None:
    """Family and task of a name such as ``roberta-zero-shot``; None for names of other models."""
    family, _, task = name.partition("-")
    return next(((family, one) for one in LABELS | {"answer": []} if one == task and family in FAMILY_NAMES), None)


def save_tiny_encoder(family: str, task: Task, folder: Path, text: str) -> Path:
    """Write a loadable folder; ``text`` is what its tokenizer is made of."""
    tokenizer = word_pieces(text) if family in WORD_PIECES else byte_pairs(text, ALIKE.get(family, family))
    auto = getattr(transformers, TASKS[task].auto_class)
    model = auto.from_config(config_of(family, task, tokenizer))
    spread(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(family: str, task: Task, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    names = LABELS.get(task, ["start", "end"])
    values = {
        **SHAPE,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "id2label": dict(enumerate(names)),
        "label2id": {name: index for index, name in enumerate(names)},
    }
    match family:
        case "bert":
            return BertConfig(**values, max_position_embeddings=MOST_TOKENS)
        case "electra":
            return ElectraConfig(**values, max_position_embeddings=MOST_TOKENS, embedding_size=32)
        case "albert":
            return AlbertConfig(**values, max_position_embeddings=MOST_TOKENS, embedding_size=32)
        case "deberta":
            # As DeBERTa-v3 is published.
            return DebertaV2Config(
                **values,
                max_position_embeddings=MOST_TOKENS,
                type_vocab_size=0,
                relative_attention=True,
                pos_att_type=["p2c", "c2p"],
                position_buckets=16,
                share_att_key=True,
                norm_rel_ebd="layer_norm",
                position_biased_input=False,
                pooler_hidden_size=64,
            )
        case "xlmr":
            return XLMRobertaConfig(**values, max_position_embeddings=MOST_TOKENS + 2, type_vocab_size=1)
        case "mpnet":
            return MPNetConfig(**values, max_position_embeddings=MOST_TOKENS + 2)
        case "bart":
            layers = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in BART_LAYERS.items()}
            ends = {"bos_token_id": 0, "eos_token_id": 2, "decoder_start_token_id": 2}
            return BartConfig(**values, **layers, **ends, d_model=64, max_position_embeddings=MOST_TOKENS)
        case "roberta":
            # It counts positions from behind the padding token's id.
            return RobertaConfig(**values, max_position_embeddings=MOST_TOKENS + 2, type_vocab_size=1)
        case "modernbert":
            ends = {"bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0, "sep_token_id": 2}
            return ModernBertConfig(**values, **ends, max_position_embeddings=MOST_TOKENS, local_attention=16)
        case _:
            return Qwen2Config(**values, num_key_value_heads=2, max_position_embeddings=MOST_TOKENS)


def word_pieces(text: str) -> BertTokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    trainer = trainers.WordPieceTrainer(vocab_size=NUM_TOKENS, special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    return BertTokenizer(vocab=tokenizer.get_vocab(), model_max_length=MOST_TOKENS)


def byte_pairs(text: str, family: str) -> PreTrainedTokenizerFast:
    """Byte-level pairs of bytes, with the marks of the family: any UTF-8 text has tokens, parts of a sign some."""
    start, pad, end, unknown, mask = MARKS[family]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=NUM_TOKENS, special_tokens=MARKS[family], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text], trainer)
    if family == "roberta":
        tokenizer.post_processor = processors.RobertaProcessing((end, 2), (start, 0), add_prefix_space=False)
    elif family == "modernbert":
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{start} $A {end}", pair=f"{start} $A {end} $B {end}", special_tokens=[(start, 0), (end, 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=start,
        cls_token=start,
        eos_token=end,
        sep_token=end,
        pad_token=pad,
        unk_token=unknown,
        mask_token=mask,
        model_max_length=MOST_TOKENS,
        model_input_names=["input_ids", "attention_mask"],
    )


def spread(model: torch.nn.Module) -> None:
    """Larger weights than the usual 0.02, so that answers differ from text to text."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "norm" not in name:
                weight.mul_(4)
