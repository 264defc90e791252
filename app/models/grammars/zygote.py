"""Starts the processes of grammars for one tokenizer, and the one they are forked from. HTTP threads.

That one is started with the first grammar, takes a second for a large vocabulary and stays; where it
ends, the next grammar starts another.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from app.core.errors import (
    ConstraintTooCostlyError,
    InvalidParameterError,
    UnavailableError,
    UnsupportedParameterError,
)
from app.models.grammars import grammar_messages as messages
from app.models.grammars.running_grammar import Grammar

Patience = Callable[[], None]
"""Called while something is waited for; raises the ``RequestError`` that says why to wait no longer."""

CHILD = "app.models.grammars.grammar_process"
# As in ``child.READY``; that module loads the compiler.
READY = b"ready"
ROOT = Path(__file__).resolve().parents[3]
LOOK_S = 0.25
START_S = 60.0
# By the clock; by processor time a child ends itself long before, unless the machine is very busy.
COMPILE_S = 30.0


class Zygote:
    """Makes grammars for one tokenizer: ``head`` and ``tokenizer`` are what the first process reads."""

    def __init__(self, head: dict[str, Any], tokenizer: str):
        self._input = json.dumps(head).encode() + b"\n" + tokenizer.encode()
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes], socket.socket], Zygote] | None = None

    def compile(self, source: messages.Source, patience: Patience) -> Grammar:
        """A running grammar. Raises ``InvalidParameterError`` and ``ConstraintTooCostlyError`` for what is the
        source's fault, ``UnavailableError`` for what is the machine's, and what ``patience`` raises."""
        end, pid = self._born(patience)
        # It waits for its source, so its id is still its own.
        grammar = Grammar(end, pid, os.pidfd_open(pid), source.param)
        try:
            end.settimeout(COMPILE_S)
            messages.send_pieces(end, source.packed())
            outcome, text = json.loads(_awaited(end, COMPILE_S, patience) or '["costly", ""]')
        except (OSError, TimeoutError):
            outcome, text = "costly", ""
        if outcome == "invalid":
            raise InvalidParameterError(" ".join(text.split()) or "it cannot be followed")
        if outcome == "unsupported":
            raise UnsupportedParameterError(text)
        if outcome == "costly":
            raise ConstraintTooCostlyError("takes more time or memory to compile than one request gets")
        return grammar

    def close(self) -> None:
        """End the first process, and with it all grammars."""
        with self._lock:
            self._stop()

    def _born(self, patience: Patience) -> tuple[socket.socket, int]:
        """The worker's end of a new process's socket, and the process's id."""
        while not self._lock.acquire(timeout=LOOK_S):
            patience()
        try:
            for _ in range(2):
                if self._control is None:
                    self._start(patience)
                assert self._control is not None
                if (child := _fork(self._control, patience)) is not None:
                    return child
                self._stop()
        finally:
            self._lock.release()
        raise UnavailableError("structured output is not available at the moment")

    def _start(self, patience: Patience) -> None:
        ours, theirs = messages.pair()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("FORKLIFT_")}
        environ |= {"PYTHONPATH": str(ROOT), "MALLOC_ARENA_MAX": "1", "TOKENIZERS_PARALLELISM": "false"}
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", CHILD, str(theirs.fileno())],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=environ,
            )
        except OSError:
            ours.close()
            raise UnavailableError("structured output is not available at the moment") from None
        finally:
            theirs.close()
        self._control, self._end = ours, weakref.finalize(self, _end, process, ours)
        assert process.stdin is not None
        with suppress(BrokenPipeError), process.stdin:
            process.stdin.write(self._input)
        said = _awaited(ours, START_S, patience)
        if said != READY.decode():
            self._stop()
            if said:
                raise InvalidParameterError("this model's tokenizer does not support structured output")
            raise UnavailableError("structured output is not available at the moment")

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._control = self._end = None


def _end(process: subprocess.Popen[bytes], control: socket.socket) -> None:
    control.close()
    process.kill()
    process.wait()


def _fork(control: socket.socket, patience: Patience) -> tuple[socket.socket, int] | None:
    """Ask for a process; None where the first process does not answer any more."""
    ours, theirs = messages.pair()
    try:
        with theirs:
            socket.send_fds(control, [b"fork"], [theirs.fileno()])
        if hello := _awaited(ours, START_S, patience):
            return ours, int(hello)
    except OSError:
        pass
    except BaseException:
        ours.close()
        raise
    ours.close()
    return None


def _awaited(end: socket.socket, timeout_s: float, patience: Patience) -> str:
    """The next message; empty where the other side is gone, or silent for ``timeout_s``."""
    poller = select.poll()
    poller.register(end, select.POLLIN)
    until_s = time.monotonic() + timeout_s
    while not poller.poll(LOOK_S * 1000):
        patience()
        if time.monotonic() >= until_s:
            return ""
    try:
        return end.recv(messages.PIECE_BYTES).decode()
    except OSError:
        return ""
