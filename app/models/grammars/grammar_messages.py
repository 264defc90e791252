"""Messages between a worker and the processes of its grammars, over sockets that keep their bounds. Pure.

To a grammar's process: its source in pieces, then orders. From it: its process id, whether the grammar
compiled, then one mask for each order that asks for one, in the order of asking.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple

from app.core.work.sampling_params import CONSTRAINT_PARAMS, ConstraintKind, ReasoningSpan

PIECE_BYTES = 60_000
# The kernel's default is 208 KiB; a mask of 500,000 tokens takes 61 KiB, and 16 rows ask at once.
BUFFER_BYTES = 1 << 20
START, ACCEPT, DROP = range(3)
FOLLOWS, ENDS, FAILED = range(3)
_ORDER = struct.Struct("<BIi")
_MASK = struct.Struct("<BBII")
Outcome = Literal["compiled", "invalid", "unsupported", "costly"]


@dataclass(frozen=True, slots=True)
class Source:
    """What is to be compiled. ``keeps_names_apart``: objects of the schema have names that the model chooses.

    ``texts`` are terminals of a Lark grammar that some text has to match, with the place that asks for each;
    ``reasoning`` is what may stand before the JSON of the schema. ``spells_signs``: names of special tokens stand in
    it as text.
    """

    kind: ConstraintKind
    text: str
    keeps_names_apart: bool = False
    given_in: str | None = None
    texts: Sequence[Sequence[str]] = ()
    reasoning: ReasoningSpan | None = None
    spells_signs: bool = False

    @property
    def param(self) -> str:
        """The field of a request that it came in."""
        return self.given_in or CONSTRAINT_PARAMS[self.kind]

    def packed(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> Source:
        fields = json.loads(data)
        span = fields.pop("reasoning")
        if span is not None:
            span = ReasoningSpan(tuple(span["opens"]), tuple(span["closes"]), span["is_open"], span["answer"])
        return cls(**fields, reasoning=span)


class Mask(NamedTuple):
    """What may come next for one matcher: ``bits`` per token (little-endian), and whether it may end.

    ``state`` ENDS: nothing but the end may come. FAILED: it cannot be followed any more. ``cpu_us``:
    processor time that it took.
    """

    matcher: int
    state: int
    may_end: bool
    cpu_us: int
    bits: bytes

    @classmethod
    def unpacked(cls, data: memoryview, size: int) -> Mask:
        """From the first ``size`` bytes of ``data``."""
        state, may_end, matcher, cpu_us = _MASK.unpack_from(data)
        return cls(matcher, state, bool(may_end), cpu_us, bytes(data[_MASK.size : size]))


def pack_mask(matcher: int, state: int, may_end: bool, cpu_us: int, bits: bytes) -> bytes:
    """A ``Mask`` as it is sent."""
    return _MASK.pack(state, may_end, matcher, cpu_us) + bits


def pack_order(order: int, matcher: int, token: int = 0) -> bytes:
    return _ORDER.pack(order, matcher, token)


def unpack_order(data: bytes) -> tuple[int, int, int]:
    order, matcher, token = _ORDER.unpack(data)
    return order, matcher, token


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends between which messages stay whole."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            end.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return ends


def send_pieces(end: socket.socket, data: bytes) -> None:
    """``data`` as messages, an empty count first."""
    end.send(struct.pack("<I", len(data)))
    for at in range(0, len(data), PIECE_BYTES):
        end.send(data[at : at + PIECE_BYTES])


def receive_pieces(end: socket.socket) -> bytes:
    """What ``send_pieces`` sent. Raises ``EOFError`` where the other side is gone."""
    head = end.recv(4)
    if len(head) < 4:
        raise EOFError
    [size] = struct.unpack("<I", head)
    data = bytearray()
    while len(data) < size:
        piece = end.recv(PIECE_BYTES)
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
