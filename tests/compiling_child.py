"""A stand-in for the process that compiles: the same limits and the same end, another outcome, by STAND_IN.

Run by ``python -m``; ``STAND_IN_FILE`` is where it says what it has become.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app.core.settings import Settings
from app.engine.loading.compiling import compile_pace, compile_process
from app.models.compiled.package_store import PackageError, Store
from tests.compiled_files import fake_files


def makes(given: dict[str, Any]) -> dict[str, Any]:
    """A package without code, for the facts of ``STAND_IN_FACTS``, once the file ``STAND_IN_GATE`` is there."""
    while not Path(os.environ.get("STAND_IN_GATE", "/")).exists():
        time.sleep(0.01)
    settings = Settings.model_validate(given)
    key, facts = json.loads(os.environ["STAND_IN_FACTS"])
    about = {"facts": facts, "eager_ms": 10.0, "compiled_ms": 5.0, "steps_ms": {"1": (10.0, 5.0)}}
    try:
        files = fake_files(Path(os.environ["TMPDIR"]) / "files")
        Store(settings.cache_path, settings.cache_max_bytes).add(key, files, about)
    except PackageError as error:
        return {"failure": str(error)}
    return {"about": {**about, "bytes": 1}}


def hangs(_given: dict[str, Any]) -> dict[str, Any]:
    """For ever, as does a compiler that it has started."""
    compiler = subprocess.Popen(["sleep", "1000"])
    tell({"pid": os.getpid(), "compiler": compiler.pid})
    compiler.wait()
    raise AssertionError


def is_killed(_given: dict[str, Any]) -> dict[str, Any]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def crashes(_given: dict[str, Any]) -> dict[str, Any]:
    raise RuntimeError("inductor has lost its way")


def fails(given: dict[str, Any]) -> dict[str, Any]:
    tell({"given": given, "data": resource.getrlimit(resource.RLIMIT_DATA)[0]})
    return {"failure": "the step could not be compiled"}


def is_silent(_given: dict[str, Any]) -> dict[str, Any]:
    os._exit(0)


def fills_the_disk(given: dict[str, Any]) -> dict[str, Any]:
    settings = Settings.model_validate(given)
    files = fake_files(Path(os.environ["TMPDIR"]) / "files")
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    try:
        Store(settings.cache_path, settings.cache_max_bytes).add("key", files, {})
    except PackageError as error:
        return {"failure": str(error)}
    raise AssertionError


def tell(what: dict[str, Any]) -> None:
    target = Path(os.environ["STAND_IN_FILE"])
    target.with_suffix(".part").write_text(json.dumps(what))
    target.with_suffix(".part").rename(target)


OUTCOMES: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = (
    *(makes, hangs, is_killed, crashes, fails, is_silent, fills_the_disk),
)

if __name__ == "__main__":
    sys.stdout.write("not the outcome\n")
    if os.environ.get("STAND_IN_RESTS"):
        compile_pace.must_rest, compile_pace.RESTS_S = lambda *_: True, float(os.environ["STAND_IN_RESTS"])
    compile_process.outcome_of = {one.__name__: one for one in OUTCOMES}[os.environ["STAND_IN"]]
    compile_process.serve()
