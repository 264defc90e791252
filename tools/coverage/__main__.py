"""Tries every causal language model of the installed transformers and writes ``docs/coverage.md``: ``make coverage``.

Each type in a process of its own, bounded in time and memory.
"""

from __future__ import annotations

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import click
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from tools.coverage.page import PAGE, written
from tools.coverage.probe import probe_apart

LIMIT_S = 240
# Each process begins with everything imported, which takes longer than most of them then do.
PROCESSES = get_context("forkserver")
PROCESSES.set_forkserver_preload(["tools.coverage.probe"])


def probed(model_type: str) -> dict[str, Any]:
    """What came of one type: the last that its process told, and why it ended where it did not come to the end."""
    with tempfile.TemporaryDirectory() as folder:
        told = Path(folder) / "told"
        process = PROCESSES.Process(target=probe_apart, args=(model_type, Path(folder) / "model", told))
        process.start()
        process.join(LIMIT_S)
        ending = f"ended with {process.exitcode}" if process.exitcode else None
        if process.is_alive():
            ending = f"took more than {LIMIT_S} s"
            process.kill()
            process.join()
        lines = told.read_text(errors="replace").splitlines() if told.exists() else []
    last = [line for line in lines if line.startswith('{"type"')]
    found: dict[str, Any] = json.loads(last[-1]) if last else {"type": model_type, "stage": "build"}
    return found if ending is None else {**found, "why": found.get("why", ending)}


@click.command(help=__doc__)
@click.option("--only", multiple=True, help="Model types; all of them if none is named, and then the page is written.")
@click.option("--jobs", default=2, show_default=True, help="Processes at a time.")
@click.option("--resume", type=Path, help="A file of results: types in it are not tried again unless they are named.")
def main(only: tuple[str, ...], jobs: int, resume: Path | None) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    known = kept_in(resume)
    types = sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    with ThreadPoolExecutor(jobs) as pool:
        for found in pool.map(probed, only or [name for name in types if name not in known]):
            print(json.dumps(found), flush=True)
            known[found["type"]] = found
            if resume is not None:
                with resume.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(found) + "\n")
    if resume is not None or not only:
        tried = [known[name] for name in types if name in known]
        Path(PAGE).write_text(written(tried, len(types) - len(tried)), encoding="utf-8")


def kept_in(path: Path | None) -> dict[str, dict[str, Any]]:
    """The last result of each type in a file, which need not be there."""
    if path is None or not path.exists():
        return {}
    return {one["type"]: one for one in map(json.loads, path.read_text(encoding="utf-8").splitlines())}


if __name__ == "__main__":
    main()
