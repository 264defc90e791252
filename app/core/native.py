"""A guard around calls into native code with what strangers sent.

A Rust panic reaches Python as pyo3's ``PanicException``, which is a ``BaseException`` and no
``Exception``: it would pass every handler that keeps one request's fault from its thread. Any thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from app.core.errors import InvalidParameterError


@contextmanager
def guarded() -> Iterator[None]:
    """Raise ``InvalidParameterError`` for what is neither an ``Exception`` nor a request to exit."""
    try:
        yield
    except (Exception, SystemExit, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException:
        raise InvalidParameterError("a library gave up on this input") from None
