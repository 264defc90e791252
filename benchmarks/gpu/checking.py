"""What the first run on a GPU decides: the check at a load, the ways to attend, the tests that need one."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import structlog
import torch
from structlog.testing import LogCapture

from app.core.settings import load_settings
from app.engine.generation.batched import BatchedEngine
from app.engine.loading.build import prepare
from app.engine.runners.choose import query_ways
from app.engine.runners.paged.paged_sizes import BLOCK_TOKENS, attention_shape
from app.engine.runners.paged.way_choice import Trial
from app.models.text_model import TextModel
from benchmarks.gpu.engine import environ, finish, job, loaded, random_ids
from benchmarks.gpu.shapes import SHAPES

ROOT = Path(__file__).resolve().parents[2]
# A stage's limit (``stages.LONE_LIMITS_S``) is above it.
TESTS_S = 280.0
TOLD = (
    *("step_failed_check", "decode_graph_failed", "attention_way_wrong", "attention_way_not_used", "attention_chosen"),
    *("compiled_steps_measured", "compiled_steps_not_used", "compiled_step_failed"),
)


def check_at_load(shape: str, folder: Path, device: str) -> dict[str, Any]:
    """What serves by itself, what was left out and why; on a CPU what a GPU would be served by."""
    capture = LogCapture()
    structlog.configure(processors=[capture])
    runner = "auto" if device == "cuda" else "paged"
    started_s = time.monotonic()
    settings = load_settings(environ(shape, folder, device, decode_runner=runner, max_batch_size=SHAPES[shape].streams))
    ready = prepare(settings, lambda _: None)
    load_s = time.monotonic() - started_s
    told = [{**line, "log_level": None} for line in capture.entries if line["event"] in TOLD]
    found: dict[str, Any] = {
        "engine": ready.engine_name,
        "dropped": list(ready.dropped),
        "check_s": ready.check_s,
        "load_s": load_s,
    }
    if isinstance(ready.engine, BatchedEngine):
        rng, new = random.Random(1), SHAPES[shape].num_checked
        with torch.inference_mode():
            finish(ready.engine, [job(random_ids(rng, 20 + 7 * i), new) for i in range(SHAPES[shape].streams)])
        graphs = ready.graphs
        found |= {
            "runner": type(ready.engine.runner).__name__,
            "graphs": 0 if graphs is None else len(graphs),
            "graph_failure": None if graphs is None else graphs.failure,
        }
    return {**found, "told": [{key: str(value) for key, value in line.items() if value is not None} for line in told]}


@torch.inference_mode()
def attention(shape: str, folder: Path, device: str) -> dict[str, Any]:
    """Microseconds of a layer, each way, of one row and of many unlike ones; and why a way cannot be taken."""
    model: TextModel = loaded(shape, folder, device, decode_runner="eager")
    place, streams = torch.device(device), SHAPES[shape].streams
    rows: list[dict[str, Any]] = []
    for num_rows in (1, streams):
        given = attention_shape(model.checkpoint, num_rows, SHAPES[shape].served_context, BLOCK_TOKENS[device])
        trial = Trial(given, place)
        for way in query_ways(place, num_rows):
            row: dict[str, Any] = {"rows": num_rows, "way": way.name, "us": None, "failure": None}
            try:
                row["failure"] = trial.failure(way)
                row["us"] = None if row["failure"] else 1e6 * trial.seconds(way, num_rows)
            except Exception as error:
                row["failure"] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"[:200]
            rows.append(row)
    return {"rows": rows}


def run_tests(device: str) -> dict[str, Any]:
    """``tests/gpu``, file by file: how many passed, failed, were skipped; which ones failed, and why."""
    end_s = time.monotonic() + TESTS_S
    rows = [{"device": device, **run_file(file, end_s)} for file in sorted((ROOT / "tests" / "gpu").glob("test_*.py"))]
    return {"rows": rows}


def run_file(file: Path, end_s: float) -> dict[str, Any]:
    """One file's tests; those that had not run by then are not told of."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", str(file), "-q", "--color=no", "-p", "no:cacheprovider"]
    command += ["-rfE", "--tb=line"]
    row = {"file": file.name, "found": "no time was left", "failed": []}
    environ = os.environ | {"OMP_NUM_THREADS": "8"}
    with TemporaryFile("w+") as output:
        process = subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, env=environ)
        try:
            process.wait(max(end_s - time.monotonic(), 0.1))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.seek(0)
        lines = [line.rstrip() for line in output if line.strip()]
    is_over = process.returncode >= 0
    failed = [line[:300] for line in lines if line.startswith(("FAILED", "ERROR"))]
    return row | {
        "found": lines[-1][:110] if is_over else f"ended before its end: {lines[-1:]}"[:110],
        "failed": failed,
    }
