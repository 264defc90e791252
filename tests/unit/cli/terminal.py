"""The program in a real terminal: what is typed reaches it, and ctrl-C as a signal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

PROGRAM = [sys.executable, "-c", "from app.cli.main import main; main()"]
CTRL_C = b"\x03"


class Terminal:
    """One process behind a pseudo-terminal."""

    def __init__(self, *arguments: str):
        self._ours, theirs = pty.openpty()
        environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100", "LINES": "30"}
        self.process = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environ,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(theirs)

    def type(self, text: bytes) -> None:
        os.write(self._ours, text)

    def read_until(self, wanted: bytes, patience_s: float = 30.0) -> bytes:
        """What is shown up to ``wanted``."""
        found, end_s = b"", time.monotonic() + patience_s
        while wanted not in found:
            assert select.select([self._ours], [], [], max(0.0, end_s - time.monotonic()))[0], found
            found += os.read(self._ours, 4096)
        return found

    def wait(self) -> int:
        """The exit code; reads on, so that the program is not held up by a full terminal."""
        end_s = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < end_s:
            if select.select([self._ours], [], [], 0.1)[0]:
                try:
                    os.read(self._ours, 4096)
                except OSError:
                    break
        return self.process.wait(10)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@contextmanager
def terminal(*arguments: str) -> Iterator[Terminal]:
    """``forklift`` with these arguments; ended at the end."""
    running = Terminal(*arguments)
    try:
        yield running
    finally:
        running.close()
