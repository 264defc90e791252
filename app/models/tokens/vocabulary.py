"""Tokens one by one: their bytes, and whether they are part of the text. Any thread.

A token need not be a whole character, so text cannot be had token by token; bytes can.
"""

from __future__ import annotations

import functools
import re

from transformers import PreTrainedTokenizerBase
from transformers.convert_slow_tokenizer import bytes_to_unicode

_BYTE_PIECE = re.compile(r"<0x([0-9A-F]{2})>")
_SPACE_PIECE = "\u2581"


class Vocabulary:
    """The tokens of one tokenizer; byte-level (GPT-2's alphabet) and sentencepiece vocabularies."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase):
        added = tokenizer.added_tokens_decoder
        self._pieces: dict[int, str] = {token: piece for piece, token in tokenizer.get_vocab().items()}
        self._added: dict[int, str] = {token: str(entry.content) for token, entry in added.items()}
        self._special = frozenset(token for token, entry in added.items() if entry.special) | frozenset(
            tokenizer.all_special_ids
        )
        self._is_byte_level = {"\u0120", "\u010a"} <= tokenizer.get_vocab().keys()
        self.drops_space = self._find_drop(tokenizer)

    def is_special(self, token: int) -> bool:
        """Whether the token stands for no text: it is left out of a completion."""
        return token in self._special

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of a token, part of a character where it is one; a special token's name."""
        if token in self._added:
            return self._added[token].encode()
        piece = self._pieces.get(token, "")
        if self._is_byte_level:
            return bytes(byte for character in piece for byte in _bytes_of(character))
        match = _BYTE_PIECE.fullmatch(piece)
        return bytes([int(match[1], 16)]) if match else piece.replace(_SPACE_PIECE, " ").encode()

    def text_bytes(self, token: int) -> bytes:
        """What the token adds to the text; nothing for a special token."""
        return b"" if self.is_special(token) else self.token_bytes(token)

    def text(self, tokens: list[int]) -> str:
        """The text of ``tokens`` without special ones; bytes that are no text become U+FFFD."""
        text = b"".join(map(self.text_bytes, tokens)).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.drops_space else text

    def _find_drop(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        """Whether a text lacks the space that its first token begins with: sentencepiece thinks it there."""
        spaced = next((token for token, piece in self._pieces.items() if piece[:1] == _SPACE_PIECE and piece[1:]), None)
        if spaced is None or self._is_byte_level:
            return False
        return not str(tokenizer.decode([spaced], clean_up_tokenization_spaces=False)).startswith(" ")


def _bytes_of(character: str) -> bytes:
    byte = byte_alphabet().get(character)
    return character.encode() if byte is None else bytes([byte])


@functools.cache
def byte_alphabet() -> dict[str, int]:
    """The byte that each printable character of GPT-2's alphabet stands for."""
    return {character: byte for byte, character in bytes_to_unicode().items()}


def without_unknown(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> list[int]:
    """``ids`` without those that the tokenizer has no token for: a model's vocabulary may be padded to a round size.

    Tokenizers with a fast version leave them out by themselves; others raise, and a model may write any id.
    """
    added, num_known = tokenizer.added_tokens_decoder, len(tokenizer)
    return [token for token in ids if token < num_known or token in added]
