"""One step as plain data: what the scheduler decides and the executor runs.

Knows neither torch nor models, so that whole schedules can be made and checked without either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeAlias, TypeVar

from app.core.errors import RequestError
from app.core.work.jobs import Job


@dataclass(frozen=True, slots=True)
class SwapRows:
    """Exchange the first ``num_tokens`` entries of two rows of the cache."""

    a: int
    b: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class CopyRow:
    """Copy the first ``num_tokens`` entries of one row over another's."""

    source: int
    target: int
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ClearRow:
    """Make every entry of a row zero: it may hold NaN, which would reach the row's next owner."""

    row: int


@dataclass(frozen=True, slots=True)
class LoadStates:
    """Have the row ``target`` go on from states: of another row as it is now, or of a snapshot, which lie behind."""

    source: int
    target: int


@dataclass(frozen=True, slots=True)
class CopyBlocks:
    """Copy blocks of entries, each from one place to another, where rows are tables of them."""

    blocks: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class ClearBlocks:
    """Make every entry of some blocks zero, as ``ClearRow`` does for a row."""

    blocks: tuple[int, ...]


Move: TypeAlias = SwapRows | CopyRow | ClearRow | LoadStates | CopyBlocks | ClearBlocks


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a prompt: ``tokens`` for positions ``start``.. of ``row``; ``all_logits`` behind each, not the last.

    ``snapshots``: behind how many tokens of the row its states are kept, in order, and in which slot.
    """

    row: int
    tokens: list[int]
    start: int
    all_logits: bool = False
    snapshots: tuple[tuple[int, int], ...] = ()

    @property
    def end(self) -> int:
        """Entries of the row behind the pass."""
        return self.start + len(self.tokens)


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step does, in this order: ``moves`` in the cache, ``chunks`` of prompts, rows 0, 1, .. decode.

    ``tokens`` holds as many for each row that decodes: the last one and its draft, filled up with 0; ``starts`` where
    they belong. ``is_mixed``: chunks and rows go through the model in one pass.
    """

    moves: tuple[Move, ...]
    chunks: list[Chunk]
    tokens: list[list[int]]
    starts: list[int]
    is_mixed: bool

    @property
    def num_prompt_tokens(self) -> int:
        return sum(len(chunk.tokens) for chunk in self.chunks)


class ScheduledSequence(Protocol):
    """As much of a sequence as scheduling needs: its job, and how many of its ``tokens`` have entries in its row."""

    job: Job
    tokens: list[int]
    num_cached: int

    @property
    def is_scored(self) -> bool:
        """Whether log-probabilities of the prompt were asked for."""
        ...

    @property
    def draft_rate(self) -> float:
        """The share of a draft that is expected to be right."""
        ...

    def draft(self, most: int) -> list[int]:
        """Tokens that may come next, at most ``most``."""
        ...

    def note_draft(self, num_guessed: int, num_right: int) -> None:
        """Its last draft had so many tokens, and so many of them were right."""
        ...

    def fail(self, error: RequestError) -> None:
        """End the job."""
        ...


AnySequence = TypeVar("AnySequence", bound=ScheduledSequence)


@dataclass(frozen=True, slots=True)
class ScheduledStep(Generic[AnySequence]):
    """A plan, and whose it is: ``running`` have the rows that decode, with ``drafts``; ``reading`` have the chunks."""

    plan: Plan
    running: list[AnySequence]
    drafts: list[list[int]]
    reading: list[AnySequence]
