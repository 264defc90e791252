"""Runs one measurement in a process of its own, so that its memory is its own, and reads what it says.

The child (``python -m app.reports.measure``) gets a request as JSON on its standard input and writes
one JSON object per line: ``progress`` (share of 1), at the end ``result`` or ``error`` (one line).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from app.core.errors import ForkliftError
from app.core.system.openmp import SPIN_ENVIRONMENT

OnProgress = Callable[[float], None]
# As ``app.serve.processes.gpus`` sets it for workers.
WORKER_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", **SPIN_ENVIRONMENT}


class ReportError(ForkliftError):
    """A measurement could not be made; the message is one line for the operator."""


def run_child(request: Mapping[str, Any], environ: Mapping[str, str], on_progress: OnProgress) -> dict[str, Any]:
    """The ``result`` of one measurement. Raises ``ReportError``; the child never outlives this call.

    The child's environment is a worker's: threads that spin at barriers as long as torch's default has
    it make a token 30 times slower beside another busy process.
    """
    command = [sys.executable, "-m", "app.reports.measure"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=WORKER_ENVIRONMENT | dict(environ),
        )
        try:
            return _converse(child, request, said, on_progress)
        finally:
            child.kill()
            child.communicate()


def _converse(
    child: subprocess.Popen[str], request: Mapping[str, Any], said: IO[str], on_progress: OnProgress
) -> dict[str, Any]:
    assert child.stdin is not None and child.stdout is not None
    # A child that has ended already reads nothing; what it said tells why.
    with suppress(BrokenPipeError), child.stdin:
        child.stdin.write(json.dumps(request))
    child.stdin = None
    for line in child.stdout:
        message = json.loads(line)
        if "error" in message:
            raise ReportError(message["error"])
        if "result" in message:
            result: dict[str, Any] = message["result"]
            return result
        on_progress(message["progress"])
    code = child.wait()
    raise ReportError(_cause(code, said))


def _cause(code: int, said: IO[str]) -> str:
    if code < 0:
        return f"the measurement was ended by signal {-code}; 9 is what the kernel sends when memory runs out"
    said.seek(0)
    lines = [line.strip() for line in said if line.strip()]
    return f"the measurement ended with code {code}: {lines[-1] if lines else 'no message'}"
