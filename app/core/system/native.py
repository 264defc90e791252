"""A guard around calls into native code with what strangers sent.

A Rust panic reaches Python as pyo3's ``PanicException``, which is a ``BaseException`` and no
``Exception``: it would pass every handler that keeps one request's fault from its thread. Any thread.

Nothing else is caught that is no ``Exception``: nobody knows what it leaves behind, so a thread ends of it
and a worker is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import InvalidParameterError


@contextmanager
def guarded() -> Iterator[None]:
    """Raise ``InvalidParameterError`` for a panic."""
    try:
        yield
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise InvalidParameterError("a library gave up on this input") from None


def _is_panic(error: BaseException) -> bool:
    """Each library brings a ``PanicException`` of its own, which no module exports."""
    kind = type(error)
    return (kind.__module__, kind.__name__) == ("pyo3_runtime", "PanicException")
