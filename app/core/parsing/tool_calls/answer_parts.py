"""The parts of an answer: content, reasoning, calls and their arguments. Pure; any thread."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Content:
    """Text of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Text of what the model thinks."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call of this function begins. ``call_id`` is what the model calls it, where its form does."""

    name: str
    call_id: str = ""


@dataclass(frozen=True, slots=True)
class Arguments:
    """More of the last call's arguments: JSON as text."""

    text: str


Part = Content | Reasoning | CallStart | Arguments
