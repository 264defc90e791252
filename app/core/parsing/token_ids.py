"""Token ids that callers send, held against a model's vocabulary. Pure functions."""

from __future__ import annotations

from collections.abc import Iterable

from app.core.errors import InvalidParameterError


def require_token_ids(ids: Iterable[int], vocab_size: int, param: str) -> None:
    """Raise ``InvalidParameterError`` unless all ``ids`` are below ``vocab_size``; ``param`` is their field.

    An id outside the embedding would poison a CUDA context: it is refused on the CPU, before anything is submitted.
    """
    if any(not 0 <= token < vocab_size for token in ids):
        raise InvalidParameterError(f"{param}: token ids go from 0 to {vocab_size - 1}", param=param)
