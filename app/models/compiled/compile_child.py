"""Has a package made by a child of this process, within limits of time, memory and disk. A thread that may wait.

Whatever happens to the child is an outcome in words: nothing here raises but for faults of ours.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from app.core.settings import Settings
from app.models.compiled.package_store import PackageError, require_private

CHILD = "app.engine.loading.compiling.compile_process"
# As in that module, which is a program of the engine's.
MAX_OUTCOME_BYTES = 1 << 16
ROOT = Path(__file__).resolve().parents[3]
# What the code of a step depends on, and where its package goes.
PASSED_ON = {
    *(
        "model",
        "model_name",
        "revision",
        "trust_remote_code",
        "chat_template",
        "dtype",
        "quantization",
        "pack_weights",
        "workers",
    ),
    *("max_context_tokens", "max_batch_size", "cache_dir", "cache_max_bytes"),
}
# By the clock: under load a child of the lowest priority gets a small part of a core.
MAX_S = 3600.0
# By the processor, of each of its processes: ten times what a small model takes.
MAX_CPU_S = 1800
MAX_FILE_BYTES = 1 << 28
# Free space that is asked for; inductor's files and the compiler's take a tenth of it.
MIN_FREE_DISK_BYTES = 1 << 29
MAX_REASON_CHARS = 300


@dataclass(frozen=True)
class Outcome:
    """``failure`` is None where a package was made; ``about`` is what it says of itself."""

    failure: str | None
    about: dict[str, Any]


def make_in_child(settings: Settings, memory_bytes: int, within_s: float) -> Outcome:
    """Compile for ``settings``; only one of all that share the cache folder may at a time.

    The child may take ``memory_bytes`` of data, and ends after ``within_s``.
    """
    scratch = settings.cache_path / "making"
    try:
        prepare_scratch(scratch)
        return run_child(settings, scratch, memory_bytes, within_s)
    except PackageError as error:
        return Outcome(str(error), {})
    except OSError as error:
        return Outcome(f"{error.filename or scratch}: {error.strerror or error}", {})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def prepare_scratch(scratch: Path) -> None:
    """An empty folder that nobody else can write to: its files are run. Raises ``PackageError``, ``OSError``."""
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700, parents=True)
    require_private(scratch)
    free = shutil.disk_usage(scratch).free
    if free < MIN_FREE_DISK_BYTES:
        raise PackageError(f"{scratch.parent} has {free / 2**20:.0f} MiB left, {MIN_FREE_DISK_BYTES >> 20} are needed")


def run_child(settings: Settings, scratch: Path, memory_bytes: int, within_s: float) -> Outcome:
    """Start the child, wait for it, end what is left of it."""
    order = {
        "settings": {**settings.model_dump(mode="json", include=PASSED_ON, exclude_unset=True), "device": "cpu"},
        "memory_bytes": memory_bytes,
        "cpu_s": MAX_CPU_S,
        "file_bytes": MAX_FILE_BYTES,
        # A load that waits for it serves nobody meanwhile.
        "rests": settings.compile != "always",
    }
    said = scratch / "said"
    told, telling = os.pipe()
    with os.fdopen(told, "rb") as outcome, os.fdopen(telling, "wb") as ours, said.open("wb") as output:
        child = start(scratch, ours.fileno(), output)
        ours.close()
        has_ended = followed(child, order, within_s)
        if not has_ended:
            return Outcome(f"it took longer than {within_s:.0f} s", {})
        return outcome_of(child.returncode, outcome.read(MAX_OUTCOME_BYTES), said)


def start(scratch: Path, telling: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """The child, which waits for its order."""
    return subprocess.Popen(
        [sys.executable, "-m", CHILD, str(telling)],
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=output,
        pass_fds=(telling,),
        env=environment(scratch),
        # Not a session of its own: where the kernel groups by session, niceness counts within one only.
        process_group=0,
    )


def followed(child: subprocess.Popen[bytes], order: dict[str, Any], within_s: float) -> bool:
    """Give the child its order; whether it ended in time. Nothing of it is left then."""
    try:
        assert child.stdin is not None
        with suppress(BrokenPipeError):
            child.stdin.write(json.dumps(order).encode() + b"\n")
            child.stdin.flush()
        return wait_for(child, within_s)
    finally:
        end(child)


def environment(scratch: Path) -> dict[str, str]:
    """Of the child: settings only in its order, all its files in ``scratch``, one compiler at a time, no GPU."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FORKLIFT_", "PROMETHEUS_"))}
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        # What it wrote last is there however it ends, and in its order.
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(scratch),
        "TORCHINDUCTOR_CACHE_DIR": str(scratch / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def wait_for(child: subprocess.Popen[bytes], within_s: float) -> bool:
    """Whether it ended in time. Sleeps meanwhile: ``Popen.wait`` would look twenty times a second."""
    watched = os.pidfd_open(child.pid)
    try:
        return bool(select.select([watched], [], [], within_s)[0])
    finally:
        os.close(watched)


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill the child and all that it started. Before it is waited for: until then its id is nobody else's."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()


def outcome_of(code: int, told: bytes, said: Path) -> Outcome:
    """Of a child that has ended, from what it told, else from the end of what it wrote."""
    with suppress(ValueError):
        found = json.loads(told)
        if isinstance(found.get("about"), dict):
            return Outcome(None, found["about"])
        return Outcome(str(found["failure"])[:MAX_REASON_CHARS], {})
    how = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
    last = last_line(said)
    return Outcome(f"its process {how}{': ' if last else ''}{last}"[:MAX_REASON_CHARS], {})


def last_line(file: Path) -> str:
    """The end of what the child wrote, mostly the name of an exception."""
    with suppress(OSError):
        lines = file.read_bytes()[-2000:].decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")
    return ""
