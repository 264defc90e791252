"""What a request asks of its completion: how tokens are chosen, and what the text must match. Pure data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from app.core.errors import ConstraintTooCostlyError
from app.core.parsing.tool_calls.answer_reader import AnswerForm


@dataclass(frozen=True, slots=True)
class ReasoningSpan:
    """What reasoning at the start of an answer begins and ends with; ``is_open``: the prompt has begun it.

    ``answer`` stands between it and the answer itself; with one there may be several of it, one after another.
    """

    opens: tuple[str, ...]
    closes: tuple[str, ...]
    is_open: bool = False
    answer: str = ""


ConstraintKind = Literal["json_schema", "regex", "lark", "tool_calls", "grammars"]
# The field of a request that a constraint comes in.
CONSTRAINT_PARAMS: dict[ConstraintKind, str] = {
    "json_schema": "response_format",
    "regex": "regex",
    "lark": "grammar",
    "tool_calls": "tools",
    "grammars": "response_format",
}


@dataclass(frozen=True, slots=True)
class Constraint:
    """What the completion must match: a JSON schema (as JSON text), a regular expression, a grammar in Lark's notation,
    tool calls (the fields of ``CallRules`` as JSON text), or llguidance's list of grammars.

    ``given_in``: the field it came in, where that holds constraints of all kinds. ``reasoning`` may stand before what
    it constrains.
    """

    kind: ConstraintKind
    source: str
    given_in: str | None = None
    reasoning: ReasoningSpan | None = None

    @property
    def param(self) -> str:
        """The field of the request that asks for it."""
        return self.given_in or CONSTRAINT_PARAMS[self.kind]


class Matcher(Protocol):
    """Follows one sequence through its grammar. Inference thread."""

    @property
    def failure(self) -> ConstraintTooCostlyError | None:
        """Why the grammar cannot be followed any more."""

    def accept(self, token: int) -> None:
        """``token`` was chosen."""

    def allowed(self, num_bytes: int) -> bytes | bytearray | None:
        """Which tokens may come next, a bit for each (little-endian), in so many bytes; None where it has failed."""


class Grammar(Protocol):
    """A constraint that was compiled (``app/models/grammars``)."""

    def matcher(self, end_ids: Iterable[int]) -> Matcher:
        """A matcher at the start of a completion that any of ``end_ids`` ends."""


@dataclass(frozen=True, slots=True)
class ReasoningLimit:
    """How many tokens of reasoning there may be, and those that close it then."""

    num_tokens: int
    closing: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How to choose tokens. Names, order and meaning as in transformers' ``GenerationConfig``.

    ``temperature`` 0 is greedy: ``top_k``, ``top_p``, ``min_p`` and ``typical_p`` then change
    nothing, while penalties, biases, bans and grammars still do, as in ``generate``. ``top_k``
    0, ``top_p`` 1, ``min_p`` 0 and ``typical_p`` 1 are off. ``presence_penalty`` and
    ``frequency_penalty`` count generated tokens (OpenAI). ``max_new_tokens`` 0 only scores the
    prompt. ``stop`` strings and the RE2 ``truncate_before_pattern``s are not part of the text that
    is returned; ``stop_token_ids`` end a sequence as the model's end token does. ``bad_words`` are
    sequences of token ids. ``text_before`` is the text in front of the completion, as far as patterns
    see it, where the prompt does not end with it (a hole's prefix). This long (``line_limit_s``) after
    its first token a completion ends, by length, at the next line break (llama.cpp's
    ``t_max_predict_ms``). ``num_logprobs`` asks for the
    log-probability of each generated token and of that many best ones; ``num_prompt_logprobs`` the
    same of the prompt's tokens. ``shown_tokens`` are special tokens that are part of the text, by their names; a
    stop string ends the sequence where it stands in the content of an ``answer`` that is told apart. Reasoning that is
    longer than ``reasoning_limit`` is closed.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    bad_words: tuple[tuple[int, ...], ...] = ()
    min_new_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stop_token_ids: frozenset[int] = frozenset()
    truncate_before_pattern: tuple[str, ...] = ()
    text_before: str | None = None
    ignore_eos: bool = False
    num_logprobs: int | None = None
    num_prompt_logprobs: int | None = None
    line_limit_s: float | None = None
    shown_tokens: frozenset[int] = frozenset()
    answer: AnswerForm | None = None
    reasoning_limit: ReasoningLimit | None = None
    grammar: Grammar | None = None


@dataclass(frozen=True, slots=True)
class SamplingDefaults:
    """What holds where a request is silent (DESIGN 1.4): the model's own values, or those of an API."""

    temperature: float
    top_p: float
    top_k: int
    repetition_penalty: float
