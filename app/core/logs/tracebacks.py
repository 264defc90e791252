"""Tracebacks for the log: where an exception came from, and its message unless that may quote a caller.

Messages of exceptions hold what failed: pydantic's the input, a template's the conversation, a parser's the text. A
thread that handles requests therefore writes only the messages of exceptions that are known to quote nobody; which
thread that is stands in a context variable, any process. Local variables are never written.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

Kinds = frozenset[type[BaseException]]

# What the operating system says.
OF_SYSTEM: Final[Kinds] = frozenset({MemoryError, OSError, *OSError.__subclasses__()})
# What torch says of tensors, which hold token ids and no text. Its own classes are recognised by their module.
OF_TENSORS: Final[Kinds] = OF_SYSTEM | {RuntimeError}
HIDDEN = "[message not logged: it may quote a request; FORKLIFT_LOG_PROMPTS=true writes it]"

_shown: ContextVar[Kinds | None] = ContextVar("shown_messages", default=None)


def handle_requests() -> None:
    """From here on this thread has callers' text in its hands."""
    _shown.set(OF_SYSTEM)


@contextmanager
def for_callers(shown: Kinds = OF_SYSTEM) -> Iterator[None]:
    """The same for what is logged within it."""
    token = _shown.set(shown)
    try:
        yield
    finally:
        _shown.reset(token)


def traceback_text(error: BaseException, *, with_messages: bool = False) -> str:
    """The traceback of ``error`` and of what it came from, oldest first, as Python writes it.

    ``with_messages``: every message, whatever this thread handles.
    """
    shown = None if with_messages else _shown.get()
    if shown is None:
        # Without local variables, which is the default of `format`.
        return "".join(traceback.format_exception(error)).rstrip("\n")
    return "\n".join(_lines(error, shown, set()))


def _lines(error: BaseException, shown: Kinds, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, shown, seen)
        yield "" if error.__cause__ is None else "The direct cause of:"
    yield "Traceback (most recent call last):"
    yield from ("".join(traceback.format_tb(error.__traceback__)).rstrip("\n"),)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    yield f"{name}: {error if _may_be_shown(kind, shown) else HIDDEN}"
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            if id(one) not in seen:
                yield from _lines(one, shown, seen)


def _may_be_shown(kind: type[BaseException], shown: Kinds) -> bool:
    return kind in shown or kind.__module__.partition(".")[0] == "torch"
