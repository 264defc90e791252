"""Ray's processes on this machine, started as one tree whose root is remembered, and ended by that root alone.

``ray stop`` ends every process that looks like Ray's, whoever started it; here only what was started here is ended.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from app.cluster.scale_error import ScaleError

MISSING = "Ray is not installed: pip install 'forklift-serve[scale]'"
RECORD = "node.json"
LOG = "ray.log"
STOP_TIMEOUT_S = 20.0
# Both are asked for by clusters with our own defaults: nothing of ours goes through Ray's object store.
OBJECT_STORE_BYTES = 100_000_000


@dataclass(frozen=True)
class NodeRecord:
    """What is known of the processes that were started here; ``started_s`` tells a pid from one that came later."""

    pid: int
    started_s: float
    address: str
    dashboard: str | None


def require_ray() -> None:
    """Raise ``ScaleError`` where the extra is not installed."""
    if importlib.util.find_spec("ray") is None:
        raise ScaleError(MISSING)


def run_ray(arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Ray's own program, to its end."""
    return subprocess.run(_command(arguments), env=dict(environ), capture_output=True, text=True, check=False)


class RayNode:
    """The one node of this user in ``folder``, which also has its log."""

    def __init__(self, folder: Path):
        self._folder = folder

    @property
    def log_path(self) -> Path:
        return self._folder / LOG

    def record(self) -> NodeRecord | None:
        """What was started here and still runs."""
        try:
            record = NodeRecord(**json.loads((self._folder / RECORD).read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return record if _root(record) is not None else None

    def start(self, arguments: Sequence[str], environ: Mapping[str, str], address: str, dashboard: str | None) -> None:
        """Start ``ray start`` with ``arguments``. Raises ``ScaleError`` where a node runs already."""
        if (old := self.record()) is not None:
            raise ScaleError(f"a node of {old.address} runs here already (pid {old.pid}); forklift scale down ends it")
        self._folder.mkdir(parents=True, exist_ok=True)
        with self.log_path.open("wb") as log:
            process = subprocess.Popen(
                _command(["start", "--block", *arguments]),
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        record = NodeRecord(process.pid, psutil.Process(process.pid).create_time(), address, dashboard)
        (self._folder / RECORD).write_text(json.dumps(asdict(record)), encoding="utf-8")

    def failure(self) -> str | None:
        """The last line of the log, where the processes have ended by themselves."""
        if self.record() is not None:
            return None
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return lines[-1] if lines else "it ended without a word"

    def stop(self) -> bool:
        """End the tree, kindly at first; False where nothing ran."""
        record = self.record()
        root = _root(record) if record is not None else None
        if root is None:
            return False
        tree = [root, *root.children(recursive=True)]
        root.terminate()
        _, left = psutil.wait_procs(tree, STOP_TIMEOUT_S)
        for process in left:
            process.kill()
        psutil.wait_procs(left, STOP_TIMEOUT_S)
        (self._folder / RECORD).unlink(missing_ok=True)
        return True


def _root(record: NodeRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        is_ours = abs(process.create_time() - record.started_s) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return process if is_ours else None


def _command(arguments: Sequence[str]) -> list[str]:
    program = Path(sys.executable).with_name("ray")
    return [str(program) if program.exists() else "ray", *arguments]


def path_of_programs() -> str:
    """PATH with this environment's programs first: Ray looks for its own there."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
