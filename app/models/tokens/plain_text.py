"""Encodes what users send as text and nothing else: no control token can come of it.

``split_special_tokens`` alone does not do: it leaves added tokens alone that are not marked special,
and Qwen2.5-Coder's infilling tokens are such. Uses the tokenizer, which the caller locks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from transformers import PreTrainedTokenizerBase

# Merges with nothing: what sentencepiece makes of a text behind it is what it makes of a continued one
# (Meta's codellama/llama/tokenizer.py, encode_infilling).
ANCHOR = "\u263a"


class PlainText:
    """Encodes text for one tokenizer; ``start`` is what the tokenizer puts in front of every prompt."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, control_tokens: Iterable[str]):
        self._tokenizer = tokenizer
        names = {*control_tokens, *tokenizer.all_special_tokens} - {tokenizer.unk_token}
        self._control = re.compile("|".join(f"(?={re.escape(name)})" for name in sorted(names) if len(name) > 1))
        sample = self._ids("a")
        self._adds_space = str(tokenizer.convert_ids_to_tokens(sample[0])).startswith("\u2581")
        whole = tokenizer("a")["input_ids"]
        self.start: list[int] = whole[: whole.index(sample[0])]

    def encode(self, text: str, *, is_continued: bool = False) -> list[int]:
        """Token ids of ``text``. ``is_continued``: no space is thought before it, as sentencepiece does."""
        ids: list[int] = []
        for piece in self._pieces(text):
            ids += self._continued(piece) if self._adds_space and (ids or is_continued) else self._ids(piece)
        return ids

    def _pieces(self, text: str) -> list[str]:
        """``text`` cut behind the first character of every control token's name, so that none is whole."""
        cuts = [match.start() + 1 for match in self._control.finditer(text)]
        return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True) if a < b]

    def _continued(self, text: str) -> list[int]:
        anchor, both = self._ids(ANCHOR), self._ids(ANCHOR + text)
        return both[len(anchor) :] if both[: len(anchor)] == anchor else self._ids(text)

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, split_special_tokens=True, verbose=False)[
            "input_ids"
        ]
        return ids
