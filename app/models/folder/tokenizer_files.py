"""What a folder's tokenizer files tell without the tokenizer: is there one, and can it be this model's? Pure functions.

Says nothing where it is not certain: the inference thread tries the tokenizer itself. No torch.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError

# Of every family's names for its vocabulary; small files that only describe one do not count.
_LIKE_A_VOCABULARY = re.compile(
    r"token|tekken|vocab|merges|bpe|spm|sentencepiece|spiece|dict|byte_maps|emoji|\.model$|\.txt$"
)
DESCRIPTIONS = {"tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"}
# Families that read bytes or characters, and have no file.
WITHOUT_FILES = ("byt5", "canine", "perceiver")


def check_has_tokenizer(folder: Path, model_type: object, tokenizer_config: dict[str, Any]) -> None:
    """Raise ``ModelLoadError`` where no file can be the tokenizer's."""
    named = f"{model_type} {tokenizer_config.get('tokenizer_class')}".lower()
    if tokenizer_config.get("auto_map") or any(name in named for name in WITHOUT_FILES):
        return
    names = {path.name.lower() for path in folder.iterdir()} - DESCRIPTIONS
    if not any(map(_LIKE_A_VOCABULARY.search, names)):
        raise ModelLoadError(f"the model {folder} has no tokenizer (tokenizer.json or its family's files)")


def check_vocabulary(path: Path, tokenizer: dict[str, Any], config: dict[str, Any]) -> None:
    """Raise ``ModelLoadError`` where ``tokenizer``, of tokenizer.json, has no vocabulary, or a larger model's.

    A few tokens more than the model has rows are common (added after the training, never written by it).
    """
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if not isinstance(vocabulary, dict | list) or not vocabulary:
        raise ModelLoadError(f"{path} holds no vocabulary: it is not a tokenizer, or only a part of one")
    num_rows = _num_rows(config)
    ids = range(len(vocabulary)) if isinstance(vocabulary, list) else vocabulary.values()
    num_beyond = sum(type(token) is int and token >= num_rows for token in ids) if num_rows else 0
    if num_beyond * 100 > len(vocabulary):
        raise ModelLoadError(
            f"{path} is another model's: it has {len(vocabulary)} tokens, vocab_size in config.json is {num_rows}"
        )


def _num_rows(config: dict[str, Any]) -> int:
    """Rows of the model's embedding, 0 where the config does not tell or code of its own may read it otherwise."""
    inner = config.get("text_config")
    told = config.get("vocab_size", inner.get("vocab_size") if isinstance(inner, dict) else None)
    return told if type(told) is int and not config.get("auto_map") else 0
