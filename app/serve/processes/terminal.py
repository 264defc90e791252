"""Cuts a worker off from the terminal, so that nothing in it can ask a question and wait for ever.

OpenSSL (pass phrases), getpass (logins) and transformers (remote code) ask /dev/tty or standard input,
on the thread that happens to need the answer.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from contextlib import suppress


def leave_terminal() -> None:
    """Standard input is empty from now on, and /dev/tty cannot be opened by this process.

    The process group stays: ctrl-C still reaches every worker.
    """
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    if null > 0:
        os.close(null)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    with suppress(OSError):
        terminal = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY)
        with suppress(OSError):
            fcntl.ioctl(terminal, termios.TIOCNOTTY)
        os.close(terminal)
