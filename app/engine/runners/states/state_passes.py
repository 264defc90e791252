"""How layers that keep states, what a convolution or a recurrence leaves behind, take a pass that is laid end to end.

A layer that keeps states takes it in pieces: the rows that decode as a batch, each prompt by itself, and that in parts
where its states are to be kept or where the layer can go on by single tokens only; or at once, where there is a forward
of ours for it (``whole_passes``). Inference thread only; knows neither jobs nor sampling.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from app.engine.generation.plan import Chunk
from app.engine.kv.row_states import RowStates
from app.engine.kv.state_cache import StateCache
from app.engine.runners.states.delta_net import DeltaPass
from app.engine.runners.states.row_convolutions import Convolutions
from app.engine.runners.states.state_hosts import StateHost
from app.engine.runners.states.whole_passes import WholePass


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens ``begin .. end`` of a pass, of which each is a row's own where ``is_rows``.

    ``loads``: the rows whose states it goes on from, the first and how many; None where they are those of the piece
    before, or there are none (``is_first``). ``keeps``: the slots that get what it leaves.
    """

    begin: int
    end: int
    is_rows: bool = False
    is_first: bool = False
    loads: tuple[int, int] | None = None
    keeps: tuple[int, ...] = ()


def pieces_of(num_rows: int, chunks: Sequence[Chunk], goes_on: bool) -> list[Piece]:
    """The pieces of a pass; not ``goes_on``: what is not the first of a prompt is taken token by token."""
    pieces = [Piece(0, num_rows, is_rows=True, loads=(0, num_rows), keeps=(0,))] if num_rows else []
    at = num_rows
    for chunk in chunks:
        pieces += pieces_of_chunk(chunk, at, goes_on)
        at += len(chunk.tokens)
    return pieces


def pieces_of_chunk(chunk: Chunk, at: int, goes_on: bool) -> list[Piece]:
    """The same for a chunk whose tokens begin at ``at`` in the pass."""
    slots = dict(chunk.snapshots)
    ends = {*slots, chunk.end}
    if not goes_on:
        ends |= set(range(min(ends) if chunk.start == 0 else chunk.start + 1, chunk.end))
    pieces, start = [], chunk.start
    for end in sorted(ends):
        keeps = (*([slots[end]] if end in slots else []), *([chunk.row] if end == chunk.end else []))
        loads = (chunk.row, 1) if start == chunk.start > 0 else None
        shift = at - chunk.start
        pieces.append(Piece(start + shift, end + shift, is_first=start == 0, loads=loads, keeps=keeps))
        start = end
    return pieces


def in_pieces(
    inner: Callable[..., Any], host: StateHost, states: RowStates, pieces: Sequence[Piece]
) -> Callable[..., Any]:
    """``inner``, the forward of ``host``, for a pass that is laid end to end."""
    num_tokens = pieces[-1].end

    def forward(*args: Any, **kwargs: Any) -> Any:
        found = []
        for piece in pieces:
            if piece.is_first:
                states.begin(host.states)
            elif piece.loads is not None:
                states.load(host.states, *piece.loads)
            else:
                states.go_on(host.states)
            some = (part_of(value, piece, num_tokens) for value in args)
            named = {name: part_of(value, piece, num_tokens) for name, value in kwargs.items()}
            found.append(laid_out(inner(*some, **named), piece))
            for slot in piece.keeps:
                states.keep(host.states, slot)
        return found[0] if len(found) == 1 else joined(found)

    return forward


def part_of(value: Any, piece: Piece, num_tokens: int) -> Any:
    """What of an argument belongs to a piece: of tensors ``(1, num_tokens, ..)`` a part, rows as ``(rows, 1, ..)``."""
    if isinstance(value, tuple):
        return tuple(part_of(one, piece, num_tokens) for one in value)
    if not isinstance(value, torch.Tensor) or value.shape[:2] != (1, num_tokens):
        return value
    part = value[:, piece.begin : piece.end]
    return part.transpose(0, 1) if piece.is_rows else part


def laid_out(value: Any, piece: Piece) -> Any:
    """What came of a piece, with rows one behind the other: ``(1, tokens, ..)``."""
    if isinstance(value, tuple):
        return tuple(laid_out(one, piece) for one in value)
    return value.transpose(0, 1) if piece.is_rows and isinstance(value, torch.Tensor) else value


def joined(found: Sequence[Any]) -> Any:
    """What came of all pieces, as of one pass."""
    if isinstance(found[0], tuple):
        return tuple(joined(some) for some in zip(*found, strict=True))
    return torch.cat(list(found), dim=1) if isinstance(found[0], torch.Tensor) else found[0]


class StatePasses:
    """Has the modules ``hosts`` take passes over ``cache`` in pieces, but for those that take ``wholes``."""

    def __init__(self, cache: StateCache, hosts: Sequence[StateHost], wholes: Sequence[WholePass] = ()):
        self._cache, self._wholes = cache, wholes
        taken = {whole.layer for whole in wholes}
        self._hosts = [host for host in hosts if host.layer not in taken]
        self._device = next(hosts[0].module.parameters()).device
        self._convolutions = Convolutions([host.module for host in self._hosts] if self._device.type == "cpu" else [])

    @contextmanager
    def of(self, num_rows: int, chunks: list[Chunk]) -> Iterator[None]:
        """A pass of rows and chunks; everything else (``generate``) finds the modules as they were."""
        with replaced(self._forwards(num_rows, chunks)), self._cache.passing(), self._convolutions.replaced():
            yield

    def _forwards(self, num_rows: int, chunks: list[Chunk]) -> list[tuple[nn.Module, Callable[..., Any]]]:
        """What each module computes such a pass by."""
        pieces = {goes_on: pieces_of(num_rows, chunks, goes_on) for goes_on in (True, False)}
        found: list[tuple[nn.Module, Callable[..., Any]]] = [
            (host.module, in_pieces(host.module.forward, host, self._cache.states[host.layer], pieces[host.goes_on]))
            for host in self._hosts
        ]
        if self._wholes:
            laid = DeltaPass(num_rows, chunks, self._device)
            found += [(whole.module, whole.of(laid, self._cache.states[whole.layer])) for whole in self._wholes]
        return found


@contextmanager
def replaced(forwards: Sequence[tuple[nn.Module, Callable[..., Any]]]) -> Iterator[None]:
    """Within it modules have other forwards."""
    usual = [module.__dict__.get("forward") for module, _ in forwards]
    for module, forward in forwards:
        module.forward = forward
    try:
        yield
    finally:
        for (module, _), own in zip(forwards, usual, strict=True):
            del module.forward
            if own is not None:
                module.forward = own
