"""Infilling prompts: each family's own format (``infill_families``), chosen by the tokens that a tokenizer has.

Only our own control tokens may act as such: what users send is encoded as plain text. Pure but for
the tokenizer, which the caller locks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from transformers import PreTrainedTokenizerBase

from app.core.errors import InvalidParameterError
from app.models.tokens.infill_families import FAMILIES, MASK_FAMILIES, Family, Literal, MaskFamily, Piece, Slot
from app.models.tokens.plain_text import PlainText

File = tuple[str, str]
"""Name and text of another file, for context."""


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Token ids, and the tokens that end what is filled in."""

    ids: list[int]
    stop_ids: frozenset[int]


class Infilling(ABC):
    """Builds the prompts of one tokenizer's format."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Infilling | None:
        """The format of ``tokenizer``, or None where it has none."""
        vocabulary = tokenizer.get_vocab()
        for masks in MASK_FAMILIES:
            if masks.fits(vocabulary):
                return MaskInfilling(tokenizer, vocabulary, masks)
        for family in FAMILIES:
            if family.fits(vocabulary):
                return MiddleInfilling(tokenizer, vocabulary, family)
        return None

    @property
    @abstractmethod
    def name(self) -> str:
        """The family's name."""

    @abstractmethod
    def prompt(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File], start: str = ""
    ) -> InfillPrompt:
        """The prompt for the hole between ``parts[len(filled)]`` and the next part.

        ``filled`` is what stands in the holes left of it; ``start`` is how what fills it begins.
        """


class MiddleInfilling(Infilling):
    """Prefix and suffix in the family's order, then the middle is generated; one hole at a time.

    The prefix is everything on the left with its holes filled; the suffix reaches to the next hole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, int], family: Family):
        self._ids = vocabulary
        self._family = family
        self._plain = PlainText(tokenizer, family.control_tokens)
        self._stop_ids = frozenset(vocabulary[end] for end in family.control_tokens if end in vocabulary)

    @property
    def name(self) -> str:
        return self._family.name

    def prompt(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File], start: str = ""
    ) -> InfillPrompt:
        at = len(filled)
        prefix = "".join(chain.from_iterable(zip_longest(parts[: at + 1], filled, fillvalue="")))
        context, suffix = self._context(files), parts[at + 1]
        has_middle = self._family.prompt[-1] is not Slot.PREFIX
        ids = [*self._plain.start] if self._family.files_inside else [*self._plain.start, *context]
        for piece in self._family.prompt:
            if piece is Slot.PREFIX:
                ids += context if self._family.files_inside else []
                ids += self._plain.encode(prefix if has_middle else prefix + start)
            elif piece is Slot.SUFFIX:
                ids += self._plain.encode(suffix, is_continued=True)
            else:
                ids += self._written([piece], {})
        if has_middle:
            ids += self._plain.encode(start, is_continued=True)
        return InfillPrompt(ids, self._stop_ids)

    def _context(self, files: Sequence[File]) -> list[int]:
        """Other files as the family was trained on them; without tokens for that, just their text."""
        layout = self._family.files
        if not files:
            return []
        has_head = all(token in self._ids for token in layout.head if isinstance(token, str))
        ids = self._written(layout.head, {}) if has_head else []
        if not any(isinstance(piece, str) for piece in layout.each):
            return ids + self._plain.encode("".join(map(_lines, files)))
        for file in files:
            ids += self._written(layout.each, {Slot.NAME: file[0], Slot.TEXT: file[1], Slot.LINES: _lines(file)})
        return ids + self._written(layout.tail, {})

    def _written(self, pieces: Iterable[Piece], values: Mapping[Slot, str]) -> list[int]:
        """Token ids of ``pieces``; texts that meet are encoded as one."""
        ids: list[int] = []
        text = ""
        for piece in pieces:
            if isinstance(piece, str):
                ids += [*self._plain.encode(text), self._ids[piece]]
                text = ""
            else:
                text += piece.text if isinstance(piece, Literal) else values[piece]
        return ids + self._plain.encode(text)


class MaskInfilling(Infilling):
    """The whole text with a mask for each hole, then each mask again before what fills it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, int], family: MaskFamily):
        names = family.masks(vocabulary)
        self._family = family
        self._end = vocabulary[family.end]
        self._masks = [vocabulary[name] for name in names]
        self._closing = None if family.closing is None else [vocabulary[token] for token in family.closing]
        self._plain = PlainText(tokenizer, (*names, family.end, *(family.closing or ())))
        self._stop_ids = frozenset({self._end, *self._masks})

    @property
    def name(self) -> str:
        return self._family.name

    def prompt(
        self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File], start: str = ""
    ) -> InfillPrompt:
        num_holes = len(self._masks) - (self._closing is None)
        if len(parts) - 1 > num_holes:
            raise InvalidParameterError(f"parts: this model fills at most {num_holes} holes", param="parts")
        ids = [*self._plain.start, *self._plain.encode("".join(map(_lines, files)))]
        for part, mask in zip(parts[:-1], self._masks, strict=False):
            ids += [*self._plain.encode(part), mask]
        ids += self._plain.encode(parts[-1])
        ids += [self._masks[len(parts) - 1]] if self._closing is None else self._closing
        for text, mask in zip(filled, self._masks, strict=False):
            ids += [mask, *self._plain.encode(text), self._end]
        return InfillPrompt([*ids, self._masks[len(filled)], *self._plain.encode(start)], self._stop_ids)


def _lines(file: File) -> str:
    """The file's text, ending with a line break."""
    text = file[1]
    return text if text.endswith("\n") or not text else f"{text}\n"
