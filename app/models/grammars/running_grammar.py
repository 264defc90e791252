"""A compiled grammar as the inference thread uses it: asks its process for masks, and never waits long.

A mask is asked for as soon as a token is chosen, and read when the next one is: the process works while
the model does. Each grammar has an allowance of processor time that grows with every mask; one that
uses it up, hangs or dies fails its own sequences.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import signal
import socket
import time
import weakref
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from app.core.errors import ConstraintTooCostlyError
from app.models.grammars import grammar_messages as messages

# A mask is 0.05 to 1 ms as a rule. What is saved up lets a grammar build its larger automata once.
ALLOWED_S_PER_STEP = 0.01
MAX_SAVED_S = 0.5
# By the clock, where the process gets no processor or does not end: nobody else may wait longer.
MASK_S = 2.0
MAX_MASK_BYTES = 1 << 20


class Grammar:
    """One grammar's process; it ends with the last reference to this. ``param``: the field that asked for it."""

    def __init__(self, end: socket.socket, pid: int, pidfd: int, param: str):
        self.has_failed = False
        self.param = param
        self._end = end
        self._pidfd = pidfd
        self.pid = pid
        self._saved_s = MAX_SAVED_S
        self._ids = itertools.count()
        self._live: set[int] = set()
        self._masks: dict[int, messages.Mask] = {}
        self._buffer = memoryview(bytearray(MAX_MASK_BYTES))
        self._poller = select.poll()
        self._poller.register(end, select.POLLIN)
        self._close = weakref.finalize(self, _close, end, pidfd)

    def matcher(self, end_ids: Iterable[int]) -> Matcher:
        """A matcher at the start of the completion; ``end_ids`` are the tokens that end this sequence."""
        matcher = Matcher(self, next(self._ids), sorted(end_ids))
        self._live.add(matcher.id)
        self.order(messages.START, matcher.id)
        return matcher

    @property
    def num_bytes(self) -> int:
        """Memory that the process has to itself; 0 where it has ended."""
        try:
            sums = Path(f"/proc/{self.pid}/smaps_rollup").read_text(encoding="ascii")
        except OSError:
            return 0
        own = re.search(r"^Private_Dirty: +(\d+) kB", sums, re.MULTILINE)
        return int(own[1]) * 1024 if own else 0

    @property
    def is_running(self) -> bool:
        """Whether its process can still be asked: an end that nobody saw counts too."""
        if self.has_failed:
            return False
        poller = select.poll()
        poller.register(self._pidfd, select.POLLIN)
        return not poller.poll(0)

    def fail(self) -> None:
        """It cannot be followed any more, by anybody."""
        self.has_failed = True
        self._close()

    def order(self, order: int, matcher: int, token: int = 0) -> None:
        """Tell the process something; it is not waited for."""
        try:
            if not self.has_failed:
                self._end.send(messages.pack_order(order, matcher, token), socket.MSG_DONTWAIT)
        except OSError:
            self.fail()

    def forget(self, matcher: int) -> None:
        """Nobody follows this sequence any more."""
        self._live.discard(matcher)
        self._masks.pop(matcher, None)
        self.order(messages.DROP, matcher)

    def mask(self, matcher: int) -> messages.Mask | None:
        """The next mask of ``matcher``; None where the grammar has failed."""
        until_s = time.monotonic() + MASK_S
        while matcher not in self._masks and not self.has_failed:
            self._read(until_s - time.monotonic())
        return self._masks.pop(matcher, None)

    def _read(self, timeout_s: float) -> None:
        size = self._received(timeout_s)
        if not size:
            self.fail()
            return
        mask = messages.Mask.unpacked(self._buffer, size)
        if mask.matcher in self._live:
            self._masks[mask.matcher] = mask
        self._saved_s += ALLOWED_S_PER_STEP / max(len(self._live), 1) - mask.cpu_us / 1e6
        self._saved_s = min(self._saved_s, MAX_SAVED_S)
        if self._saved_s < 0:
            self.fail()

    def _received(self, timeout_s: float) -> int:
        """Bytes of the next message, which is in the buffer then; 0 where none came, or the process is gone."""
        try:
            return self._end.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        except BlockingIOError:
            pass
        except OSError:
            return 0
        try:
            is_there = self._poller.poll(max(timeout_s, 0) * 1000)
            return self._end.recv_into(self._buffer, 0, socket.MSG_DONTWAIT) if is_there else 0
        except OSError:
            return 0


def _close(end: socket.socket, pidfd: int) -> None:
    with suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    end.close()


class Matcher:
    """Follows one sequence through its grammar. Inference thread."""

    def __init__(self, grammar: Grammar, number: int, end_ids: list[int]):
        self.id = number
        self._grammar = grammar
        self._end_ids = end_ids
        self._has_ended = False
        self._failed = False
        weakref.finalize(self, grammar.forget, number).atexit = False

    @property
    def failure(self) -> ConstraintTooCostlyError | None:
        """Why no mask of it means anything any more."""
        if not self._failed:
            return None
        param = self._grammar.param
        return ConstraintTooCostlyError(f"{param}: takes more time or memory than one request gets", param=param)

    def accept(self, token: int) -> None:
        """``token`` was chosen; it is one that the last mask allowed."""
        if not self._has_ended:
            self._grammar.order(messages.ACCEPT, self.id, token)

    def allowed(self, num_bytes: int) -> bytes | bytearray | None:
        """Which tokens may come next, a bit for each (little-endian); where the end may, every token that ends the
        sequence. Elsewhere none of them, though it be text to the grammar, unless nothing else may come."""
        if self._has_ended:
            return self._with_ends(bytes(num_bytes))
        mask = self._grammar.mask(self.id)
        if mask is None or mask.state == messages.FAILED:
            self._failed = True
            return None
        if mask.state == messages.ENDS:
            self._has_ended = True
            return self._with_ends(bytes(num_bytes))
        # Tokens behind the mask's end, where there are any, come out as forbidden.
        bits = mask.bits if len(mask.bits) == num_bytes else mask.bits[:num_bytes].ljust(num_bytes, b"\0")
        return self._with_ends(bits) if mask.may_end else self._without_ends(bits)

    def _with_ends(self, bits: bytes) -> bytearray:
        found = bytearray(bits)
        for token in self._end_ids:
            found[token >> 3] |= 1 << (token & 7)
        return found

    def _without_ends(self, bits: bytes) -> bytes | bytearray:
        ends = [token for token in self._end_ids if bits[token >> 3] >> (token & 7) & 1]
        if not ends:
            return bits
        found = bytearray(bits)
        for token in ends:
            found[token >> 3] &= ~(1 << (token & 7)) & 0xFF
        return found if any(found) else bits
