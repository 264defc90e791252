"""Infilling formats as data: what each family of code models was trained on, with its source.

Pure data; ``infill`` builds prompts from it. The first family whose tokens a vocabulary holds is taken, so the ones
with more tokens come first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain


class Slot(Enum):
    """What a request fills in."""

    PREFIX = "text before the hole"
    SUFFIX = "text behind it"
    NAME = "name of another file"
    TEXT = "its text"
    LINES = "its text, ended by a line break"


@dataclass(frozen=True, slots=True)
class Literal:
    """Words of the format that are plain text."""

    text: str


Piece = str | Literal | Slot
"""A control token by its name, plain words, or what a request fills in."""

PREFIX, SUFFIX, NAME, TEXT, LINES = Slot
BREAK = Literal("\n")
REPOSITORY = Literal("repository")


@dataclass(frozen=True, slots=True)
class Files:
    """How other files stand in front: ``head`` once (as far as its tokens are there), ``each``, ``tail`` once."""

    each: tuple[Piece, ...]
    head: tuple[Piece, ...] = ()
    tail: tuple[Piece, ...] = ()


# Families that never saw other files, or whose publishers do not tell how: their text stands in front.
PLAIN_FILES = Files((LINES,))


@dataclass(frozen=True, slots=True)
class Family:
    """Prefix, suffix, then the middle is generated; ``ends`` are tokens that end it, as far as a tokenizer has them.

    ``marks`` and ``lacks`` tell families apart whose other tokens are the same: tokens that a vocabulary must hold, and
    must not. ``files_inside``: other files belong to the prefix, and stand where it does.
    """

    name: str
    source: str
    prompt: tuple[Piece, ...]
    files: Files = PLAIN_FILES
    ends: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    files_inside: bool = False

    @property
    def needed(self) -> set[str]:
        """Tokens without which the format cannot be written."""
        return {*tokens_of(chain(self.prompt, self.files.each, self.files.tail)), *self.marks}

    @property
    def control_tokens(self) -> set[str]:
        """Every token that a user's text must not become; each of them ends a middle, too."""
        return {*self.needed, *tokens_of(self.files.head), *self.ends}

    def fits(self, vocabulary: Collection[str]) -> bool:
        """Whether a tokenizer is one of this family."""
        return all(token in vocabulary for token in self.needed) and not any(
            token in vocabulary for token in self.lacks
        )


@dataclass(frozen=True, slots=True)
class MaskFamily:
    """Models that see the whole text with a mask for each hole, then each mask again before what fills it.

    ``mask`` is written with numbers from ``first`` on; ``closing`` stands behind the text, None: one more mask.
    """

    name: str
    source: str
    mask: str
    first: int
    end: str
    closing: tuple[str, ...] | None = None

    def masks(self, vocabulary: Collection[str]) -> list[str]:
        """The masks that a vocabulary holds, in order."""
        names: list[str] = []
        while (name := self.mask.format(self.first + len(names))) in vocabulary:
            names.append(name)
        return names

    def fits(self, vocabulary: Collection[str]) -> bool:
        """Whether a tokenizer is one of this family."""
        least = 1 if self.closing is not None else 2
        return len(self.masks(vocabulary)) >= least and {self.end, *(self.closing or ())} <= set(vocabulary)


def tokens_of(pieces: Iterator[Piece] | tuple[Piece, ...]) -> Iterator[str]:
    """The control tokens among ``pieces``."""
    return (piece for piece in pieces if isinstance(piece, str))


def _prefix_first(prefix: str, suffix: str, middle: str) -> tuple[Piece, ...]:
    return (prefix, PREFIX, suffix, SUFFIX, middle)


def _suffix_first(prefix: str, suffix: str, middle: str) -> tuple[Piece, ...]:
    return (suffix, SUFFIX, prefix, PREFIX, middle)


_BARS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")
_PLAIN = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>")
_DASHES = ("<fim-prefix>", "<fim-suffix>", "<fim-middle>")
_BRACKETS = ("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>")
_CODE = ("<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>")
_MELLUM_FILES = Files(("<filename>", NAME, BREAK, LINES))
_MELLUM_SOURCE = "https://huggingface.co/JetBrains/Mellum-4b-base"

MASK_FAMILIES = (
    MaskFamily("InCoder", "https://github.com/dpfried/incoder", "<|mask:{}|>", 0, "<|endofmask|>"),
    MaskFamily(
        "CodeGen2",
        "https://huggingface.co/Salesforce/codegen2-1B_P",
        "<mask_{}>",
        1,
        "<eom>",
        closing=("<|endoftext|>", "<sep>"),
    ),
)
FAMILIES = (
    Family(
        "Qwen-Coder",
        "https://github.com/QwenLM/Qwen2.5-Coder",
        _prefix_first(*_BARS),
        Files(("<|file_sep|>", NAME, BREAK, LINES), ("<|repo_name|>", REPOSITORY, BREAK), tail=("<|file_sep|>", BREAK)),
        ends=("<|fim_pad|>", "<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    ),
    Family(
        "CodeGemma",
        "https://ai.google.dev/gemma/docs/codegemma/model_card",
        _prefix_first(*_BARS),
        Files((NAME, BREAK, TEXT, "<|file_separator|>")),
    ),
    # Granite 4, Llama 4 and others that only have the three.
    Family(
        "Granite",
        "https://huggingface.co/ibm-granite/granite-4.0-h-tiny",
        _prefix_first(*_BARS),
        ends=("<|fim_pad|>", "<|im_end|>", "<|end_of_text|>", "<|filename|>", "<|reponame|>"),
    ),
    Family(
        "StarCoder2",
        "https://arxiv.org/abs/2402.19173",
        _prefix_first(*_PLAIN),
        Files(("<file_sep>", NAME, BREAK, TEXT), ("<repo_name>", REPOSITORY), tail=("<file_sep>",)),
        ends=("<fim_pad>", "<|endoftext|>"),
    ),
    Family(
        "Mellum",
        _MELLUM_SOURCE,
        _suffix_first(*_PLAIN),
        _MELLUM_FILES,
        ends=("<fim_pad>", "<|endoftext|>", "<reponame>"),
        marks=("<think>",),
    ),
    # The same without the tokens for roles; StarCoder's children have <gh_stars> beside <filename>.
    Family(
        "Mellum",
        _MELLUM_SOURCE,
        _suffix_first(*_PLAIN),
        _MELLUM_FILES,
        ends=("<fim_pad>", "<|endoftext|>", "<reponame>"),
        lacks=("<gh_stars>",),
    ),
    # StarCoder and those with its tokens: Granite Code and Granite 3, StableCode, Refact, CodeQwen1.5. Yi-Coder's
    # publishers do not show how it fills: it is served where its tokenizer has these or the ones above.
    Family(
        "StarCoder",
        "https://arxiv.org/abs/2305.06161",
        _prefix_first(*_PLAIN),
        ends=("<fim_pad>", "<|endoftext|>", "<|end_of_text|>", "<|im_end|>", "<filename>", "<reponame>"),
    ),
    Family(
        "SantaCoder",
        "https://huggingface.co/bigcode/santacoder",
        _prefix_first(*_DASHES),
        ends=("<fim-pad>", "<|endoftext|>"),
    ),
    Family(
        "DeepSeek-Coder",
        "https://github.com/deepseek-ai/DeepSeek-Coder",
        _prefix_first("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581hole\uff5c>", "<\uff5cfim\u2581end\uff5c>"),
    ),
    Family(
        "Code Llama",
        "https://github.com/meta-llama/codellama/blob/main/llama/generation.py",
        _prefix_first("\u2581<PRE>", "\u2581<SUF>", "\u2581<MID>"),
        ends=("\u2581<EOT>",),
    ),
    Family(
        "Seed-Coder",
        "https://arxiv.org/abs/2506.03524",
        _suffix_first(*_BRACKETS),
        ends=("<[fim-pad]>", "<[end\u2581of\u2581sentence]>"),
    ),
    Family(
        "GLM",
        "https://huggingface.co/zai-org/GLM-4.5",
        _prefix_first(*_CODE),
        ends=("<|endoftext|>", "<|user|>", "<|observation|>"),
        marks=("<think>",),
    ),
    Family(
        "CodeGeeX4",
        "https://github.com/THUDM/CodeGeeX4/blob/main/guides/Infilling_guideline.md",
        (
            "<|user|>",
            Literal("\n###MODE:BLOCK\n"),
            *_suffix_first(*_CODE),
            "<|assistant|>",
            BREAK,
        ),
        ends=("<|endoftext|>", "<|observation|>"),
    ),
    Family("GLM", "https://huggingface.co/zai-org/GLM-4.5", _prefix_first(*_CODE), ends=("<|endoftext|>", "<|user|>")),
    Family(
        "aiXcoder",
        "https://github.com/aixcoder-plugin/aiXcoder-7B",
        (
            "\u2581<AIX-SPAN-PRE>",
            "\u2581<AIX-SPAN-POST>",
            SUFFIX,
            "\u2581<AIX-SPAN-MIDDLE>",
            PREFIX,
        ),
        ends=("\u2581<AIX-SPAN-END>",),
    ),
    # mistral-common's encode_fim: no token for the middle, which goes on where the prefix ends.
    Family(
        "Codestral",
        "https://github.com/mistralai/mistral-common",
        ("[SUFFIX]", SUFFIX, "[PREFIX]", PREFIX),
        ends=("[MIDDLE]",),
        files_inside=True,
    ),
)
