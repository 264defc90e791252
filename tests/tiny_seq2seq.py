"""Small encoder-decoder models with random weights: seven families, each with a tokenizer as its publisher's is made.

``save_tiny_model("t5", folder)`` comes here.
"""

from __future__ import annotations

import io
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import sentencepiece
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BartConfig,
    M2M100Config,
    M2M100Tokenizer,
    MarianConfig,
    MarianTokenizer,
    MBart50Tokenizer,
    MBartConfig,
    MBartTokenizer,
    NllbTokenizer,
    PegasusConfig,
    PegasusTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    T5Config,
    T5Tokenizer,
)
from transformers.models.auto.modeling_auto import AutoModelForSeq2SeqLM
from transformers.models.m2m_100.tokenization_m2m_100 import FAIRSEQ_LANGUAGE_CODES

from tests.tiny_encoders import byte_pairs, spread

NUM_PIECES = 200
MOST_PIECE = 8
MOST_TOKENS = 96
SHAPE = {
    **{"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4},
    **{"decoder_attention_heads": 4, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64},
    "max_position_embeddings": MOST_TOKENS,
}
# As t5-small's config has them, with ends that a test can wait for.
T5_PARAMS = {
    "summarization": {
        **{"prefix": "summarize: ", "early_stopping": True, "length_penalty": 2.0, "max_length": 24},
        **{"min_length": 5, "no_repeat_ngram_size": 3, "num_beams": 4},
    },
    "translation_en_to_de": {
        **{"prefix": "translate English to German: ", "early_stopping": True, "max_length": 20, "num_beams": 4}
    },
    "translation_en_to_fr": {"prefix": "translate English to French: ", "max_length": 20, "num_beams": 1},
}
# What published models of the family bring in their generation config.
GENERATION: dict[str, dict[str, object]] = {
    "t5": {"max_length": 20},
    "bart": {
        **{"num_beams": 4, "max_length": 22, "min_length": 6, "length_penalty": 2.0, "no_repeat_ngram_size": 3},
        **{"early_stopping": True, "forced_bos_token_id": 0, "forced_eos_token_id": 2},
    },
    "mbart": {"num_beams": 5, "max_length": 16, "early_stopping": True, "forced_eos_token_id": 2},
    "mbart50": {"num_beams": 5, "max_length": 16, "early_stopping": True, "forced_eos_token_id": 2},
    "m2m100": {"num_beams": 5, "max_length": 16, "early_stopping": True},
    "nllb": {"max_length": 16},
    "marian": {"num_beams": 4, "max_length": 16, "forced_eos_token_id": 0, "bad_words_ids": [[1]]},
    "pegasus": {"num_beams": 8, "max_length": 16, "length_penalty": 0.8, "forced_eos_token_id": 1},
}
SEQ2SEQ = tuple(GENERATION)
TIED = ("t5", "pegasus")


def save_tiny_seq2seq(family: str, folder: Path, text: str) -> Path:
    """Write a loadable folder; ``text`` is what its tokenizer is made of."""
    tokenizer = TOKENIZERS[family](folder, text)
    config = config_of(family, tokenizer)
    # Where outputs read what inputs are made of, random weights say the last token again and again.
    config.tie_word_embeddings = family in TIED
    model = AutoModelForSeq2SeqLM.from_config(config)
    spread(model)
    for name, weight in model.named_parameters():
        # Else random weights say much the same whatever the source is.
        if weight.ndim == 2 and ("encoder_attn" in name or "EncDecAttention" in name):
            weight.data.mul_(2)
    model.generation_config.update(**GENERATION[family])
    if family != "t5":
        model.generation_config.decoder_start_token_id = model.config.decoder_start_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(family: str, tokenizer: PreTrainedTokenizerBase) -> PreTrainedConfig:
    # Languages of M2M100 stand behind what its tokenizer counts.
    size = max(len(tokenizer), *getattr(tokenizer, "lang_code_to_id", {"": 0}).values()) + 1
    ends = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    match family:
        case "t5":
            shape = {"d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4, "n_positions": MOST_TOKENS}
            ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
            return T5Config(vocab_size=size, **shape, **ends, task_specific_params=T5_PARAMS)
        case "bart":
            return BartConfig(vocab_size=size, **SHAPE, **ends)
        case "mbart" | "mbart50":
            return MBartConfig(vocab_size=size, **SHAPE, **ends)
        case "m2m100" | "nllb":
            return M2M100Config(vocab_size=size, **SHAPE, **ends)
        case "marian":
            ends = {"pad_token_id": 1, "eos_token_id": 0, "decoder_start_token_id": 1}
            return MarianConfig(vocab_size=size, **SHAPE, **ends)
        case _:
            ends = {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0}
            return PegasusConfig(vocab_size=size, **SHAPE, **ends)


def pieces(text: str, marks: list[str]) -> list[tuple[str, float]]:
    """A unigram vocabulary of ``text`` behind ``marks``: its characters, and pieces of words that save the most.

    Counted, as the library's trainer makes another vocabulary of the same text each time.
    """
    counts: Counter[str] = Counter()
    for word, number in Counter(f"\u2581{word}" for word in text.split()).items():
        for first in range(len(word)):
            for last in range(first + 1, min(first + MOST_PIECE, len(word)) + 1):
                counts[word[first:last]] += number
    characters = sorted(piece for piece in counts if len(piece) == 1)
    longer = sorted((piece for piece in counts if len(piece) > 1), key=lambda one: (-counts[one] * (len(one) - 1), one))
    found = [*characters, *longer[: max(NUM_PIECES - len(characters), 0)]]
    scores = [(piece, math.log(counts[piece] / counts.total())) for piece in found if piece not in marks]
    return [(mark, 0.0) for mark in marks] + scores


def sentence_pieces(folder: Path, name: str, text: str) -> list[str]:
    """Write a model of sentencepiece; its pieces."""
    folder.mkdir(parents=True, exist_ok=True)
    written = io.BytesIO()
    lines = [line for line in text.splitlines() if line]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=written, vocab_size=NUM_PIECES, minloglevel=2
    )
    (folder / name).write_bytes(written.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())
    return [model.id_to_piece(index) for index in range(model.get_piece_size())]


def _bart(_folder: Path, text: str) -> PreTrainedTokenizerBase:
    tokenizer = byte_pairs(text, "roberta")
    tokenizer.model_max_length = MOST_TOKENS
    return tokenizer


def _t5(_folder: Path, text: str) -> PreTrainedTokenizerBase:
    return T5Tokenizer(vocab=pieces(text, ["<pad>", "</s>", "<unk>"]), extra_ids=4)


def _pegasus(_folder: Path, text: str) -> PreTrainedTokenizerBase:
    marks = ["<pad>", "</s>", "<mask_1>", "<mask_2>"]
    return PegasusTokenizer(vocab=[*pieces(text, [*marks, "<unk>"])], offset=5)


def _mbart(_folder: Path, text: str) -> PreTrainedTokenizerBase:
    return MBartTokenizer(vocab=pieces(text, ["<s>", "<pad>", "</s>", "<unk>"]))


def _mbart50(_folder: Path, text: str) -> PreTrainedTokenizerBase:
    return MBart50Tokenizer(vocab=pieces(text, ["<unk>", "<s>", "</s>"]), src_lang="en_XX")


def _nllb(_folder: Path, text: str) -> PreTrainedTokenizerBase:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    marks = ["<s>", "<pad>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(vocab_size=NUM_PIECES, special_tokens=marks, show_progress=False)
    tokenizer.train_from_iterator([text], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return NllbTokenizer(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])


def _m2m100(folder: Path, text: str) -> PreTrainedTokenizerBase:
    found = sentence_pieces(folder, "sentencepiece.bpe.model", text)
    names = ["<s>", "<pad>", "</s>", "<unk>", *(one for one in found if not one.startswith("<"))]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    languages = [f"__{code}__" for code in FAIRSEQ_LANGUAGE_CODES["m2m100"]]
    files = [str(folder / name) for name in ("vocab.json", "sentencepiece.bpe.model")]
    return M2M100Tokenizer(*files, additional_special_tokens=languages)


def _marian(folder: Path, text: str) -> PreTrainedTokenizerBase:
    found = sentence_pieces(folder, "source.spm", text)
    (folder / "target.spm").write_bytes((folder / "source.spm").read_bytes())
    names = ["</s>", "<pad>", "<unk>", ">>fra<<", ">>deu<<", *(one for one in found if not one.startswith("<"))]
    (folder / "vocab.json").write_text(json.dumps({name: index for index, name in enumerate(names)}))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    return MarianTokenizer(*files, source_lang="eng", target_lang="mul")


TOKENIZERS: dict[str, Callable[[Path, str], PreTrainedTokenizerBase]] = {
    "t5": _t5,
    "bart": _bart,
    "mbart": _mbart,
    "mbart50": _mbart50,
    "m2m100": _m2m100,
    "nllb": _nllb,
    "marian": _marian,
    "pegasus": _pegasus,
}
