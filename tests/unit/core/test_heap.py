"""Memory that other threads freed goes back to the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Blocks below the size that glibc maps one by one, from a thread of their own; prints MiB before, with, after.
PROGRAM = """
import threading, psutil
from app.core.system.memory.heap import trim_heap, limit_heaps
limit_heaps(1)
sizes = []
def note(): sizes.append(psutil.Process().memory_info().rss / 2**20)
def work():
    blocks = [bytes([1]) * 100_000 for _ in range(1000)]
    note()
    del blocks
note()
thread = threading.Thread(target=work)
thread.start()
thread.join()
trim_heap()
note()
print(*sizes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's heaps")
def test_what_a_thread_freed_is_returned():
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=60)
    before, held, after = map(float, run.stdout.split())
    assert held > before + 90
    assert after < before + 20
