"""Ctrl-C ends the program at once with 130; a command that has something to put back asks for an exception.

A library may swallow a ``KeyboardInterrupt`` or turn it into another failure (an import that is cut short becomes an
``ImportError``): where nothing has to be put back, the process simply ends. Imports nothing but what the interpreter
has: it runs before everything else is imported.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 130


def leave_at_once() -> None:
    """From now on; not where whoever started the program ignores SIGINT, as ``nohup`` and ``&`` do."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)


@contextmanager
def interruptible() -> Iterator[None]:
    """Within it ctrl-C is a ``KeyboardInterrupt``."""
    if signal.getsignal(signal.SIGINT) is not _leave:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, _leave)


def _leave(_number: int, _frame: FrameType | None) -> None:
    with suppress(OSError):
        if os.isatty(2):
            # The terminal has written ^C.
            os.write(2, b"\n")
    os._exit(INTERRUPTED)
