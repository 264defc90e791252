"""Tries every causal language model of the installed transformers and writes ``docs/coverage.md``: ``make coverage``.

Each type in a process of its own, bounded in time and memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tools.coverage.page import PAGE, written

LIMIT_S = 240
MEMORY_BYTES = 8 * 2**30


def probed(model_type: str) -> dict[str, Any]:
    """What came of one type: the last that its process told, and why it ended where it did not come to the end."""
    command = [sys.executable, "-m", "tools.coverage.probe", model_type]
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [*command, f"{folder}/model"],
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                preexec_fn=limit_memory,
                env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            )
            output, ending = done.stdout, f"ended with {done.returncode}" if done.returncode else None
        except subprocess.TimeoutExpired as late:
            output, ending = (late.stdout or b"").decode(), f"took more than {LIMIT_S} s"
    lines = [line for line in output.splitlines() if line.startswith('{"type"')]
    found: dict[str, Any] = json.loads(lines[-1]) if lines else {"type": model_type, "stage": "build"}
    return found if ending is None else {**found, "why": found.get("why", ending)}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="Model types; all of them if none is named, and then the page is written.")
@click.option("--jobs", default=2, show_default=True, help="Processes at a time.")
@click.option("--resume", type=Path, help="A file of results: types in it are not tried again unless they are named.")
def main(only: tuple[str, ...], jobs: int, resume: Path | None) -> None:
    known = kept_in(resume)
    types = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(probed, only or [name for name in types if name not in known]):
            print(json.dumps(found), flush=True)
            known[found["type"]] = found
            if resume is not None:
                with resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
    if all(name in known for name in types):
        Path(PAGE).write_text(written([known[name] for name in types]), encoding="utf-8")


def kept_in(path: Path | None) -> dict[str, dict[str, Any]]:
    """The last result of each type in a file, which need not be there."""
    if path is None or not path.exists():
        return {}
    return {one["type"]: one for one in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


if __name__ == "__main__":
    main()
