"""Two nodes as two machines have them: a network namespace for each, and a wire between.

HAProxy shares its port with no other one, so that on one machine only one node lets callers in.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.scale.cluster import PORT, Cluster
from tests.service.conftest import wait_for

PROGRAMS = ("ip", "nsenter", "unshare")
ADDRESSES = ("10.77.0.1", "10.77.0.2")
WIRE = ("fl-here", "fl-there")


def missing() -> str | None:
    """Why there can be no second machine; None where there can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"{', '.join(absent)}: not installed"
    tried = subprocess.run(["unshare", "-n", "ip", "link", "add", *_wire()], capture_output=True, text=True)
    return f"no virtual wire: {tried.stderr.strip()}" if tried.returncode else None


def _wire(*there: str) -> list[str]:
    return [WIRE[0], "type", "veth", "peer", "name", WIRE[1], *there]


class TwoMachines(Cluster):
    """Node 0, the head, is here; node 1 in the namespace of the process ``there``. Callers come in at node 1."""

    def __init__(self, folder: Path, there: int, **settings: Any):
        super().__init__(folder, **settings)
        self._there = there
        self.url = f"http://{ADDRESSES[1]}:{PORT}"

    def address(self, number: int) -> str:
        return ADDRESSES[number]

    def _prefix(self, number: int) -> list[str]:
        return _inside(self._there) if number else []


@contextmanager
def second_machine() -> Iterator[int]:
    """The process whose namespace it is; its devices go with it."""
    holder = subprocess.Popen(["unshare", "-n", "sleep", "infinity"])
    try:
        wait_for(lambda: _namespace(holder.pid) != _namespace("self"), "the namespace", 10)
        _run("ip", "link", "add", *_wire("netns", str(holder.pid)))
        for prefix, device, address in zip(([], _inside(holder.pid)), WIRE, ADDRESSES, strict=True):
            _run(*prefix, "ip", "address", "add", f"{address}/24", "dev", device)
            for name in (device, "lo"):
                _run(*prefix, "ip", "link", "set", name, "up")
        yield holder.pid
    finally:
        # With the namespace alone it would go some time later, and the next test makes one of that name.
        subprocess.run(["ip", "link", "delete", WIRE[0]], check=False)
        holder.kill()
        holder.wait()


@contextmanager
def two_machines(replicas: str, options: dict[str, object], **settings: Any) -> Iterator[TwoMachines]:
    """Both nodes, brought up with ``options``; ended whatever happens."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="fl", dir="/tmp", ignore_cleanup_errors=True))
        made = TwoMachines(Path(folder), stack.enter_context(second_machine()), **settings)
        stack.callback(made.down)
        made.start(2, replicas, options)
        yield made


def _inside(pid: int) -> list[str]:
    return ["nsenter", f"--net=/proc/{pid}/ns/net"]


def _namespace(pid: int | str) -> str | None:
    with suppress(OSError):
        return str(Path(f"/proc/{pid}/ns/net").readlink())
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
