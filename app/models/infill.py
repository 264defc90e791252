"""Infilling prompts: each family's own format, chosen by the special tokens that its tokenizer has.

Only our own control tokens may act as such: what users send is encoded as plain text. Pure but for
the tokenizer, which the caller locks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest

from transformers import PreTrainedTokenizerBase

from app.core.errors import InvalidParameterError
from app.models.plain_text import PlainText

File = tuple[str, str]
"""Name and text of another file, for context."""


@dataclass(frozen=True, slots=True)
class InfillPrompt:
    """Token ids, and the tokens that end what is filled in."""

    ids: list[int]
    stop_ids: frozenset[int]


@dataclass(frozen=True, slots=True)
class Family:
    """Prefix-suffix-middle tokens; ``ends`` are others that end a middle, as far as a tokenizer has them.

    ``file_start`` stands before each file's name (``repository`` before all of them), ``file_end``
    behind each file's text.
    """

    prefix: str
    suffix: str
    middle: str
    repository: str | None = None
    file_start: str | None = None
    file_end: str | None = None
    ends: tuple[str, ...] = ()

    @property
    def needed(self) -> tuple[str, ...]:
        return tuple(filter(None, (self.prefix, self.suffix, self.middle, self.file_start, self.file_end)))

    @property
    def all_ends(self) -> tuple[str, ...]:
        return (*filter(None, (*self.needed, self.repository)), *self.ends)


MASK, END_OF_MASK = "<|mask:{}|>", "<|endofmask|>"
REPOSITORY = "repository"
# The first whose tokens are all there is taken, so the richer ones come first. Sources: Qwen2.5-Coder's
# README; CodeGemma's model card; BigCode's StarCoder2 and SantaCoder; DeepSeek-Coder's README; Meta's
# codellama/llama/generation.py.
FAMILIES = (
    Family(
        "<|fim_prefix|>",
        "<|fim_suffix|>",
        "<|fim_middle|>",
        repository="<|repo_name|>",
        file_start="<|file_sep|>",
        ends=("<|fim_pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    ),
    Family("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", file_end="<|file_separator|>"),
    Family("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", ends=("<|fim_pad|>", "<|im_end|>")),
    Family(
        "<fim_prefix>",
        "<fim_suffix>",
        "<fim_middle>",
        repository="<repo_name>",
        file_start="<file_sep>",
        ends=("<fim_pad>", "<|endoftext|>"),
    ),
    Family("<fim_prefix>", "<fim_suffix>", "<fim_middle>", ends=("<fim_pad>", "<|endoftext|>")),
    Family("<fim-prefix>", "<fim-suffix>", "<fim-middle>", ends=("<fim-pad>", "<|endoftext|>")),
    Family("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    Family("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>", ends=("\u2581<EOT>",)),
)


class Infilling(ABC):
    """Builds the prompts of one tokenizer's format."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Infilling | None:
        """The format of ``tokenizer``, or None where it has none."""
        vocabulary = tokenizer.get_vocab()
        if {MASK.format(0), MASK.format(1), END_OF_MASK} <= vocabulary.keys():
            return MaskInfilling(tokenizer, vocabulary)
        for family in FAMILIES:
            if vocabulary.keys() >= set(family.needed):
                return MiddleInfilling(tokenizer, vocabulary, family)
        return None

    @abstractmethod
    def prompt(self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File]) -> InfillPrompt:
        """The prompt for the hole between ``parts[len(filled)]`` and the next part.

        ``filled`` is what stands in the holes left of it.
        """


class MiddleInfilling(Infilling):
    """Prefix, suffix, then the middle is generated; one hole at a time.

    The prefix is everything on the left with its holes filled; the suffix reaches to the next hole.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, int], family: Family):
        self._ids = vocabulary
        self._family = family
        self._plain = PlainText(tokenizer, family.all_ends)
        self._stop_ids = frozenset(vocabulary[end] for end in family.all_ends if end in vocabulary)

    def prompt(self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File]) -> InfillPrompt:
        at = len(filled)
        prefix = "".join(chain.from_iterable(zip_longest(parts[: at + 1], filled, fillvalue="")))
        ids = [
            *self._plain.start,
            *self._context(files),
            self._ids[self._family.prefix],
            *self._plain.encode(prefix),
            self._ids[self._family.suffix],
            *self._plain.encode(parts[at + 1], is_continued=True),
            self._ids[self._family.middle],
        ]
        return InfillPrompt(ids, self._stop_ids)

    def _context(self, files: Sequence[File]) -> Iterable[int]:
        """Other files as the family was trained on them; without tokens for that, just their text."""
        if not files:
            return []
        if self._family.file_start is not None:
            return self._started_files(files)
        if self._family.file_end is not None:
            end = self._ids[self._family.file_end]
            return chain.from_iterable([*self._plain.encode("\n".join(file)), end] for file in files)
        return self._plain.encode("".join(map(_lines, files)))

    def _started_files(self, files: Sequence[File]) -> Iterable[int]:
        """``repository\\n``, then each file under its name; the file with the hole has none to show."""
        assert self._family.file_start is not None
        start = self._ids[self._family.file_start]
        repository = self._ids.get(self._family.repository or "")
        ids = [] if repository is None else [repository, *self._plain.encode(f"{REPOSITORY}\n")]
        for file in files:
            ids += [start, *self._plain.encode(f"{file[0]}\n{_lines(file)}")]
        return [*ids, start, *self._plain.encode("\n")]


class MaskInfilling(Infilling):
    """InCoder: the whole text with a mask for each hole, then each mask again before what fills it.

    One more mask ends the text, as in the model's own examples (dpfried/incoder).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, vocabulary: dict[str, int]):
        self._end = vocabulary[END_OF_MASK]
        self._masks: list[int] = []
        while (mask := vocabulary.get(MASK.format(len(self._masks)))) is not None:
            self._masks.append(mask)
        names = [MASK.format(i) for i in range(len(self._masks))]
        self._plain = PlainText(tokenizer, (*names, END_OF_MASK))
        self._stop_ids = frozenset({self._end, *self._masks})

    def prompt(self, parts: Sequence[str], filled: Sequence[str], files: Sequence[File]) -> InfillPrompt:
        if len(parts) > len(self._masks):
            raise InvalidParameterError(f"parts: this model fills at most {len(self._masks) - 1} holes", param="parts")
        ids = [*self._plain.start, *self._plain.encode("".join(map(_lines, files)))]
        for part, mask in zip(parts, self._masks, strict=False):
            ids += [*self._plain.encode(part), mask]
        for text, mask in zip(filled, self._masks, strict=False):
            ids += [mask, *self._plain.encode(text), self._end]
        return InfillPrompt([*ids, self._masks[len(filled)]], self._stop_ids)


def _lines(file: File) -> str:
    """The file's text, ending with a line break."""
    text = file[1]
    return text if text.endswith("\n") or not text else f"{text}\n"
