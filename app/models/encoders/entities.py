"""Entities from the labels of tokens, with all strategies of transformers' token-classification pipeline.

Pure functions of a tokenizer and of what was read off a pass; the tokenizer is used under its model's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from transformers import PreTrainedTokenizerBase

from app.core.tasks.encoder_jobs import EncoderInput, Table

Strategy: TypeAlias = Literal["none", "simple", "first", "average", "max"]
Entity: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Piece:
    """A token, or a word of several: its probabilities ``(num_labels,)``, and the characters ``start`` to ``end``.

    ``continues``: it is a part of the word of the piece before it.
    """

    word: str
    scores: Table
    start: int | None
    end: int | None
    index: int
    continues: bool

    @property
    def label(self) -> int:
        return int(self.scores.argmax())

    @property
    def score(self) -> float:
        return float(self.scores[self.label])


@dataclass(frozen=True, slots=True)
class EntityFinder:
    """``labels`` by their ids; what has one of the labels ``ignored`` is left out."""

    tokenizer: PreTrainedTokenizerBase
    labels: Sequence[str]
    strategy: Strategy
    ignored: Sequence[str]

    def find(self, text: str, given: EncoderInput, scores: Table) -> list[Entity]:
        """The entities of a text, or of one of its parts; ``scores`` is ``(seq, num_labels)``."""
        pieces = [piece for at in range(len(given.ids)) if (piece := self._piece(text, given, scores, at)) is not None]
        match self.strategy:
            case "none":
                return [self._token(piece) for piece in pieces if self._is_wanted(piece.label)]
            case "simple":
                return self._grouped(pieces)
            case _:
                return self._grouped([self._word(group) for group in words(pieces)])

    def _piece(self, text: str, given: EncoderInput, scores: Table, at: int) -> Piece | None:
        """The ``at``-th token; None for one that stands for nothing in the text."""
        if given.segments[at] is None:
            return None
        word = str(self.tokenizer.convert_ids_to_tokens(given.ids[at]))
        if not given.spans:
            return Piece(word, scores[at], None, None, at, continues=False)
        start, end = given.spans[at]
        if given.ids[at] == self.tokenizer.unk_token_id:
            return Piece(text[start:end], scores[at], start, end, at, continues=False)
        if self._marks_continuations:
            continues = len(word) != end - start
        else:
            continues = start > 0 and " " not in text[start - 1 : start + 1]
        return Piece(word, scores[at], start, end, at, continues)

    @property
    def _marks_continuations(self) -> bool:
        """Whether tokens within a word are longer than what they stand for; else spaces tell words apart."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        return bool(getattr(getattr(backend, "model", None), "continuing_subword_prefix", None))

    def _word(self, group: Sequence[Piece]) -> Piece:
        """The pieces of one word as one, which has one label."""
        match self.strategy:
            case "average":
                scores = np.asarray(np.stack([piece.scores for piece in group]).mean(axis=0), dtype=np.float32)
            case "max":
                scores = max(group, key=lambda piece: piece.score).scores
            case _:
                scores = group[0].scores
        word = self.tokenizer.convert_tokens_to_string([piece.word for piece in group])
        return Piece(word, scores, group[0].start, group[-1].end, group[0].index, continues=False)

    def _grouped(self, pieces: Iterable[Piece]) -> list[Entity]:
        """Neighbours of one entity together: a label that begins one ends the one before it."""
        groups: list[list[Piece]] = []
        for piece in pieces:
            begins, kind = split_label(self.labels[piece.label])
            if groups and not begins and kind == split_label(self.labels[groups[-1][-1].label])[1]:
                groups[-1].append(piece)
            else:
                groups.append([piece])
        entities = [self._entity(group) for group in groups]
        return [entity for entity in entities if entity["entity_group"] not in self.ignored]

    def _entity(self, group: Sequence[Piece]) -> Entity:
        return {
            "entity_group": self.labels[group[0].label].split("-", 1)[-1],
            "score": sum(piece.score for piece in group) / len(group),
            "word": self.tokenizer.convert_tokens_to_string([piece.word for piece in group]),
            "start": group[0].start,
            "end": group[-1].end,
        }

    def _token(self, piece: Piece) -> Entity:
        return {
            "entity": self.labels[piece.label],
            "score": piece.score,
            "index": piece.index,
            "word": piece.word,
            "start": piece.start,
            "end": piece.end,
        }

    def _is_wanted(self, label: int) -> bool:
        return self.labels[label] not in self.ignored


def words(pieces: Iterable[Piece]) -> list[list[Piece]]:
    """Pieces word by word."""
    groups: list[list[Piece]] = []
    for piece in pieces:
        if groups and piece.continues:
            groups[-1].append(piece)
        else:
            groups.append([piece])
    return groups


def split_label(label: str) -> tuple[bool, str]:
    """Whether a label begins an entity, and of which kind the entity is."""
    if label.startswith(("B-", "I-")):
        return label[0] == "B", label[2:]
    return False, label


def without_overlaps(entities: Sequence[Entity]) -> list[Entity]:
    """Of entities in parts that overlap those that cover most, then those that are surest; in the order of the text."""
    kept: list[Entity] = []
    for entity in sorted(entities, key=lambda one: int(one["start"])):
        if not kept or not kept[-1]["start"] <= entity["start"] < kept[-1]["end"]:
            kept.append(entity)
        elif weight(entity) > weight(kept[-1]):
            kept[-1] = entity
    return kept


def weight(entity: Entity) -> tuple[int, float]:
    """Characters covered, and how sure it is."""
    return int(entity["end"]) - int(entity["start"]), float(entity["score"])
