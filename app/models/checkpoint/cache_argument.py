"""What a model of this version of transformers calls the argument that takes its key-value cache.

transformers 5.24 renamed ``past_key_values`` to ``cache``, in models and in their layers; the old name
still works there, with a warning per call. Code that came with a checkpoint may have either. Inference thread only.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

NAMES = ("past_key_values", "cache")


def cache_argument(forward: Callable[..., Any]) -> str | None:
    """The name under which ``forward`` takes a cache; None where its signature shows none of those known.

    A forward of 5.24 that is decorated to take the old name too shows the new one only.
    """
    parameters = inspect.signature(forward).parameters
    return next((name for name in NAMES if name in parameters), None)


def cache_argument_of(model: PreTrainedModel) -> str:
    """The name under which ``model`` takes a cache; the oldest known where it does not say."""
    return cache_argument(type(model).forward) or NAMES[0]
