"""Standard streams that can be written to, be they a terminal, a pipe, closed, full, or without half the letters.

What strangers wrote (names in folders, configs, answers) goes to them as text that a terminal only shows.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import suppress
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from app.core.logs.printable import printable

# Opened the other way round, as coreutils do it: a program that writes to a closed output is told so.
_CLOSED = ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY))


def prepare_streams() -> None:
    """Fills closed descriptors, so that no file or socket takes their place; what cannot be written becomes ``?``."""
    for descriptor, flags in _CLOSED:
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)
    sys.stdin = sys.stdin or io.StringIO()
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def flush_streams() -> str | None:
    """Writes what is held back. Returns why standard output could not be written; None where it could."""
    failures = [_flush(stream) for stream in (sys.stderr, sys.stdout)]
    return failures[1]


def _flush(stream: TextIO) -> str | None:
    try:
        stream.flush()
    except (OSError, ValueError) as error:
        silence(stream)
        return getattr(error, "strerror", None) or str(error)
    return None


def silence(stream: TextIO) -> None:
    """What is held back goes nowhere: the interpreter's own flush at the end would fail again, with a traceback."""
    with suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def make_console(*, stderr: bool = False) -> Console:
    """Where tables and lines go: no text is taken for markup."""
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False)


def cell(value: Any, style: str = "") -> Text:
    """A value of a stranger in a table."""
    return Text(printable(str(value)), style)


def write_answer(text: str) -> None:
    """What a model wrote, at once: for a terminal without what would steer it, else as it is.

    Not by ``click.echo``, which takes escape sequences out of what goes into a pipe.
    """
    sys.stdout.write(printable(text.replace("\r\n", "\n"), keep="\n\t") if sys.stdout.isatty() else text)
    sys.stdout.flush()
