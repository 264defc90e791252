"""The process above the one that compiles: ends it with its server, and has it rest while others want the processors.

Niceness does not keep a compiler out of the way of a pass: what threads share out in equal parts waits for the
slowest of them, and a tenth of one core that is taken at every moment holds up all. Here the compiler has a part of
the time instead, its share of the processors then, and none of the rest. Standard library only: this process is small
and never imports torch.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# The compiler runs this long, then rests as long as that where it had to wait for processors meanwhile.
RUNS_S = 0.1
RESTS_S = 0.4
# Of the time that it ran: as long as it waited for a processor where others want them.
WAITED_SHARE = 0.1
# The descriptor whose other end the server holds.
SERVER = 0


def follow(worker: int, *, rests: bool) -> None:
    """Wait for the child ``worker``, then end as it did; ends its process group with the server.

    ``rests``: have it rest while others want the processors.
    """
    ended = os.pidfd_open(worker)
    while True:
        before_s = waited_s(worker) if rests else 0.0
        if is_over(ended, RUNS_S):
            break
        if rests and must_rest(before_s, waited_s(worker)) and rested(worker, ended):
            break
    end_as(os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]))


def is_over(ended: int, within_s: float) -> bool:
    """Wait; whether the worker has ended. Kills the whole group once the server lets go of its pipe, or has ended."""
    until_s = time.monotonic() + within_s
    while (left_s := until_s - time.monotonic()) > 0:
        ready = select.select([ended, SERVER], [], [], left_s)[0]
        if SERVER in ready and not os.read(SERVER, 1):
            os.killpg(0, signal.SIGKILL)
        if ended in ready:
            return True
    return False


def must_rest(before_s: float | None, after_s: float | None) -> bool:
    """Whether others want the processors, by how long the worker waited in all; so they do where nobody knows."""
    return before_s is None or after_s is None or after_s - before_s > WAITED_SHARE * RUNS_S


def rested(worker: int, ended: int) -> bool:
    """Stop the worker and all that it has started for ``RESTS_S``; whether it has ended."""
    stopped = family_of(worker)
    send(stopped, signal.SIGSTOP)
    try:
        return is_over(ended, RESTS_S)
    finally:
        send(stopped, signal.SIGCONT)


def send(processes: Iterable[int], what: signal.Signals) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, what)


def family_of(worker: int) -> list[int]:
    """The worker and all that it has started, those above before those below."""
    found = [worker]
    for process in found:
        with suppress(OSError):
            for task in Path(f"/proc/{process}/task").iterdir():
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def waited_s(worker: int) -> float | None:
    """How long all threads of ``family_of`` that are there now were ready and had no processor, in seconds.

    None where the kernel does not say.
    """
    waited_ns = 0
    for process in family_of(worker):
        try:
            for task in Path(f"/proc/{process}/task").iterdir():
                waited_ns += int((task / "schedstat").read_text(encoding="ascii").split()[1])
        except (FileNotFoundError, ProcessLookupError):
            if not Path("/proc/self/schedstat").exists():
                return None
        except (OSError, ValueError, IndexError):
            return None
    return waited_ns / 1e9


def end_as(code: int) -> None:
    """End with this exit code, or by this signal where it is negative, as ``subprocess`` counts; leaves no core."""
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
