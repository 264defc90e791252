"""What every loaded model has for the other packages: a name, a task, limits, text to ids and back.

Made on the inference thread; HTTP threads call the methods, under a lock, since slow tokenizers
(and transformers' own wrapper) are not safe to share.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, cast

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from app.core.errors import ContextLengthError
from app.core.parsing.token_ids import require_token_ids
from app.core.patience import held
from app.core.states import WeightFormat
from app.models.checkpoint.loader import Checkpoint
from app.models.tokens.vocabulary import Vocabulary, without_unknown

# What has more tokens than so many contexts is not tokenized whole.
LIMIT_IN_CONTEXTS = 4
# Characters that are tokenized at once while it is not known whether a text is too long.
PIECE_LENGTH = 2**14
# Tokens that a cut in the middle of a word may add to a piece.
CUT_TOKENS = 16


class ServedModel:
    """Tokenizer and limits of one model."""

    def __init__(self, name: str, checkpoint: Checkpoint, context_tokens: int):
        self.name = name
        self.task = checkpoint.task
        self.created_s = int(time.time())
        self.checkpoint = checkpoint
        self.tokenizer: PreTrainedTokenizerBase = checkpoint.tokenizer
        self.context_tokens = context_tokens
        self.vocab_size = checkpoint.vocab_size
        self.vocabulary = Vocabulary(self.tokenizer)
        self._lock = threading.Lock()

    def forget_weights(self) -> None:
        """The model was unloaded: what an HTTP thread may still hold is tokenizer and names. Inference thread."""
        self.checkpoint = replace(self.checkpoint, model=cast(PreTrainedModel, nn.Module()))

    @property
    def dtype(self) -> str:
        """What the weights are computed in: float32, bfloat16, float16."""
        return str(self.checkpoint.dtype).removeprefix("torch.")

    @property
    def format(self) -> WeightFormat:
        """That of its files."""
        return self.checkpoint.format

    @property
    def device_type(self) -> str:
        """What it runs on: cpu, cuda."""
        return self.checkpoint.device.type

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, with the special tokens that the model's tokenizer adds by itself."""
        self.require_short(text)
        with held(self._lock):
            ids: list[int] = self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"]
        return self.checked(ids)

    def require_short(self, *texts: str, most_tokens: int | None = None) -> None:
        """Raise ``ContextLengthError`` where ``texts`` have far more tokens than the context, before they are
        tokenized whole; or more than ``most_tokens``, where those do not have to fit at once."""
        bound = most_tokens or self.context_tokens * LIMIT_IN_CONTEXTS
        if sum(map(len, texts)) <= bound:
            return
        num_tokens = 0
        for text in texts:
            for _, num_in_piece in self._pieces(text):
                num_tokens += num_in_piece
                if num_tokens > bound:
                    times = f"{LIMIT_IN_CONTEXTS} times as many tokens as the context of {self.context_tokens}"
                    told = times if most_tokens is None else f"{most_tokens} tokens, the most that are read in parts"
                    raise ContextLengthError(f"the text has more than {told}")

    def shortened(self, text: str, side: Literal["left", "right"]) -> str:
        """``text`` without what is certainly left out on ``side``, where it is cut to the context."""
        if len(text) <= self.context_tokens * LIMIT_IN_CONTEXTS:
            return text
        num_tokens = num_kept = 0
        for num_characters, num_in_piece in self._pieces(text, is_reversed=side == "left"):
            num_kept += num_characters
            num_tokens += num_in_piece
            if num_tokens > self.context_tokens * LIMIT_IN_CONTEXTS:
                break
        return text[-num_kept:] if side == "left" else text[:num_kept]

    def _pieces(self, text: str, *, is_reversed: bool = False) -> Iterator[tuple[int, int]]:
        """Characters and tokens of one piece after the other.

        Read piece by piece, a text that would never fit costs no more than one that does, and nobody waits long for
        the tokenizer. How many characters a token may stand for is not known (a tokenizer may know a megabyte as one
        unknown word), so they are counted as tokens, less what a cut may have added.
        """
        starts = range(0, len(text), PIECE_LENGTH)
        for at in reversed(starts) if is_reversed else starts:
            part = text[at : at + PIECE_LENGTH]
            with held(self._lock):
                piece = self.tokenizer(part, add_special_tokens=False, verbose=False)
            yield len(part), max(len(piece["input_ids"]) - CUT_TOKENS, 0)

    def token_strings(self, ids: list[int]) -> list[str]:
        """The tokens as the vocabulary writes them."""
        with held(self._lock):
            return [token or "" for token in self.tokenizer.convert_ids_to_tokens(ids)]

    def detokenize(self, ids: list[int]) -> str:
        """Text of ``ids``, special tokens included. Raises ``InvalidParameterError`` for unknown ids."""
        require_token_ids(ids, self.vocab_size, "tokens")
        if len(ids) > self.context_tokens * LIMIT_IN_CONTEXTS:
            text = f"tokens: more than {LIMIT_IN_CONTEXTS} times as many as the context of {self.context_tokens}"
            raise ContextLengthError(text, param="tokens")
        with held(self._lock):
            known = without_unknown(self.tokenizer, ids)
            return str(self.tokenizer.decode(known, skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def checked(self, ids: list[int], param: str = "prompt") -> list[int]:
        """``ids``, all of them in the vocabulary. Raises ``InvalidParameterError``."""
        require_token_ids(ids, self.vocab_size, param)
        return ids


def context_size(config: PretrainedConfig) -> int | None:
    """Positions that the model was made for, or None where the config names none."""
    text_config = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "n_ctx", "seq_length"):
        value = getattr(text_config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    return None
