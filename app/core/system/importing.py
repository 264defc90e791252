"""Imports of whole libraries, without a look for garbage at every few hundred objects that they make.

Any thread. torch and transformers make a million objects that stay: a full collection walks them all, in 0.2 s.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing_once(library: str) -> Iterator[None]:
    """Around the first imports of ``library`` and its like: what is there behind them is never walked again.

    Where it is there already nothing is changed: what a process that has worked holds may be garbage.
    """
    if library in sys.modules:
        yield
        return
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
