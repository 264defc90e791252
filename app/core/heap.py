"""The C library's heaps, as far as a process that loads and unloads models must care. glibc only.

Other C libraries have neither of the two functions, and nothing is done there.
"""

from __future__ import annotations

import ctypes

# <malloc.h>
M_ARENA_MAX = -8


def use_one_heap() -> None:
    """Keep all threads of this process, those to come, on one heap; call it before they are started.

    By default each thread gets one of its own, and ``malloc_trim`` never returns the top of those
    (glibc 2.36): a model whose weights were converted left up to its own size behind.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


def trim_heap() -> None:
    """Return free pages to the system, which glibc keeps for later."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
