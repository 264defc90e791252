"""Mistakes at a start, each tried with the real program: what it says, its exit code, how long that took.

``python -m tests.e2e.start_mistakes`` prints docs/start-errors.md.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.mistaken_folders import MISTAKES_OF_FOLDERS, REPOSITORY
from tests.e2e.mistakes import MISTAKES_OF_SETTINGS, Mistake

LIMIT_S = 300.0
MISTAKES = MISTAKES_OF_SETTINGS + MISTAKES_OF_FOLDERS


@dataclass(frozen=True)
class Outcome:
    mistake: Mistake
    code: int
    output: str
    seconds: float
    cpu_seconds: float
    folder: str = field(repr=False)

    @property
    def lines(self) -> list[str]:
        """The lines for people; others are log lines in JSON."""
        return [line for line in self.output.splitlines() if not line.startswith("{")]

    @property
    def line(self) -> str:
        """The last one, without the paths of this run."""
        return self.lines[-1].replace(self.folder, "/models") if self.lines else ""


def attempt(mistake: Mistake) -> Outcome:
    """Start the server with the mistake and wait for its end."""
    with scratch() as folder, socket.create_server(("127.0.0.1", 0)) as taken:
        given = mistake.prepare(folder)
        given = {name: value.replace("{taken}", str(taken.getsockname()[1])) for name, value in given.items()}
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("FORKLIFT_", "CUDA_"))}
        environ = clean | {"FORKLIFT_BIND": "127.0.0.1:0", "FORKLIFT_DEVICE": "cpu", "HOME": str(folder)} | given
        command = [*(as_others() if mistake.without_rights else ()), sys.executable, "-m", "gunicorn", "wsgi:app"]
        start_s, cpu_start_s = time.monotonic(), cpu_seconds()
        ended = subprocess.run(
            command,
            cwd=REPOSITORY,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=LIMIT_S,
            check=False,
        )
        seconds = time.monotonic() - start_s
        output = ended.stdout.decode(errors="replace")
        return Outcome(mistake, ended.returncode, output, seconds, cpu_seconds() - cpu_start_s, str(folder))


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder that other users may enter."""
    folder = Path(tempfile.mkdtemp(prefix="forklift-start-"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def cpu_seconds() -> float:
    """Of the children that have ended; true for one start where they are tried one after the other."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def as_others() -> tuple[str, ...]:
    """Root may read everything; without these rights it is as any other user with its own files."""
    if os.geteuid() != 0:
        return ()
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")


def possible() -> list[Mistake]:
    """Those that can be made here."""
    can_drop = os.geteuid() != 0 or shutil.which("setpriv") is not None
    return [one for one in MISTAKES if can_drop or not one.without_rights]


PAGE = """# Mistakes at a start

What the server says where it cannot start: one line on stderr, exit code 3. Written by
`python -m tests.e2e.start_mistakes`, which starts the real program with each mistake, one after the other; a test
does the same. Seconds on two cores that were busy with other work, and the processor time in them, which is what a
start takes on a free machine; the last four are found only when torch and the model's library have been imported.
What to do about each line: [operations](operations.md#what-stops-a-start).

| mistake | line | exit code | seconds | of processor time |
|---|---|---|---|---|
"""


def row(outcome: Outcome) -> str:
    # A page names no setting that does not exist, not even as an example.
    line = outcome.line.replace("|", "\\|").replace("`", "'").replace("MAX_QUEU;", "...;")
    return f"| {outcome.mistake.name} | `{line}` | {outcome.code} | {outcome.seconds:.1f} | {outcome.cpu_seconds:.1f} |"


def main() -> None:
    print(PAGE + "\n".join(row(attempt(mistake)) for mistake in possible()))


if __name__ == "__main__":
    main()
