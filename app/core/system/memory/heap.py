"""The C library's heaps, as far as a process with many threads and large blocks must care. glibc only.

Other C libraries have neither of the two functions, and nothing is done there.
"""

from __future__ import annotations

import ctypes

# <malloc.h>
M_ARENA_MAX = -8
# Of a worker: HTTP threads need not wait for the inference thread's allocations; a model that is unloaded leaves more
# behind in two.
NUM_HEAPS = 2


def limit_heaps(num_heaps: int) -> None:
    """Keep all threads of this process, those to come, on that many heaps; call it before they are started.

    By default each thread gets one of its own (up to eight per core), and ``malloc_trim`` never returns the top of
    those but the first (glibc 2.36): a model whose weights were converted left up to its own size behind, and large
    answers that 24 callers did not read a quarter of a worker's memory (with two heaps 4%).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, num_heaps)


def trim_heap() -> None:
    """Return free pages to the system, which glibc keeps for later."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if malloc_trim is not None:
        malloc_trim(0)
