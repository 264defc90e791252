"""The console script, and ctrl-C for it some time after it has begun."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

# The console script, which tells on a descriptor when ctrl-C has its meaning: before that, while the interpreter
# itself starts, it is Python's. Of what is imported by then nothing takes long.
TELLING = """
import os, sys
from app.core.system import interrupts
leave_at_once = interrupts.leave_at_once
def telling():
    leave_at_once()
    interrupts.leave_at_once = leave_at_once  # the commands call it once more
    os.write({descriptor}, b"late" if "click" in sys.modules or "requests" in sys.modules else b"in time")
    os.close({descriptor})
interrupts.leave_at_once = telling
from app.cli.entry import run
run()
"""


def interrupted(arguments: list[str], after_s: float, **environ: str) -> tuple[int, str]:
    """The exit code and what was written to stderr, ctrl-C having come ``after_s`` seconds after the first line."""
    ours, theirs = os.pipe()
    program = [sys.executable, "-c", TELLING.format(descriptor=theirs)]
    process = subprocess.Popen(
        [*program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=[theirs],
        env=os.environ | environ,
    )
    try:
        os.close(theirs)
        assert os.read(ours, 100) == b"in time"
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=300)
    finally:
        os.close(ours)
        process.kill()
        process.wait()
    return process.returncode, errors.decode()
