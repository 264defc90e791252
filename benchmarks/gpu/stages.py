"""Runs the stages one after another, each in a process and with a time limit of its own; keeps what was measured.

A stage that fails or takes too long is reported and the others go on. A second run measures only
what the first did not. Standard library only; knows nothing of models.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.core.system.openmp import SPIN_ENVIRONMENT
from benchmarks.gpu.shapes import named

ROOT = Path(__file__).resolve().parents[2]
# Most seconds per kind of stage; in this order, by worth, for each shape.
LIMITS_S = {
    "make": 150,
    "load": 180,
    "engine": 200,
    "attention": 120,
    "forklift": 180,
    "transformers": 150,
    "parity": 150,
    "quantized": 200,
    "flask": 100,
}
# What a stage says nothing of without a GPU.
NOT_ON_CPU = {
    "device": "bandwidth and products are the CPU's",
    "make": "memory of the device",
    "load": "CUDA graphs (a stand-in records), FlexAttention, varlen attention, compiled steps",
    "engine": "CUDA graphs (a stand-in records, which is slower than none), compiled steps, memory of the device",
    "attention": "FlexAttention and varlen attention; times are the CPU's",
    "forklift": "memory of the device; passes are eager or C++",
    "transformers": "its kernels for CUDA",
    "parity": "CUDA graphs (a stand-in records), compiled steps",
    "quantized": "torchao: int8 is the CPU's own form, and fp8 there is none",
    "flask": "memory of the device",
    "tests": "all: they are collected and skipped",
}
# A run with tiny shapes that shows whether all of it works.
DRY = {"device": "cpu", "shapes": "tiny", "stage_limit_s": 180.0, "limit_s": 1800.0}
# Those that have no shape; the tests come behind the first shape's stages.
LONE_LIMITS_S = {"device": 60, "tests": 300}
GRACE_S = 15
ERROR_LINES = 12


@dataclass(frozen=True)
class Stage:
    """One measurement of one shape, or of none (``LONE_LIMITS_S``)."""

    kind: str
    shape: str
    limit_s: float

    @property
    def name(self) -> str:
        return f"{self.kind} {self.shape}".strip()


@dataclass(frozen=True)
class Plan:
    """What to run, where, and where the results go."""

    stages: tuple[Stage, ...]
    device: str
    output: Path
    work: Path
    limit_s: float
    fresh: bool
    resume: Path | None = None

    @classmethod
    def of(cls, options: argparse.Namespace) -> Plan:
        limits = LONE_LIMITS_S | LIMITS_S
        kinds = options.stages.split(",") if options.stages else list(limits)
        if unknown := [kind for kind in kinds if kind not in limits]:
            raise SystemExit(f"error: no stage {unknown[0]!r}; there are {', '.join(limits)}")
        chosen = {kind: options.stage_limit_s or limit_s for kind, limit_s in limits.items() if kind in kinds}
        stages = [Stage(kind, shape, chosen[kind]) for kind, shape in ordered(named(options.shapes)) if kind in chosen]
        work, output = options.work.resolve(), Path(options.output).resolve()
        return cls(tuple(stages), options.device, output, work, options.limit_s, options.fresh, options.resume)


def run(plan: Plan) -> int:
    """Run what is not done yet, print the tables and one JSON line; 0 where every stage is done."""
    plan.output.mkdir(parents=True, exist_ok=True)
    (plan.work / "logs").mkdir(parents=True, exist_ok=True)
    end_s = time.monotonic() + plan.limit_s
    results = {} if plan.fresh else earlier(plan)
    for stage in plan.stages:
        if is_done(plan, stage, results):
            continue
        left_s = end_s - time.monotonic()
        results[stage.name] = run_stage(plan, stage) if left_s > stage.limit_s else {"status": "not started"}
        save(plan, results)
        print(f"{stage.name}: {results[stage.name]['status']}, {end_s - time.monotonic():.0f} s left", flush=True)
    save(plan, results)
    from benchmarks.gpu.tables import show_all

    show_all(results, plan.output / "tables.txt")
    return 0 if all(results[stage.name]["status"] == "done" for stage in plan.stages) else 1


def ordered(shapes: list[str]) -> list[tuple[str, str]]:
    """Kinds and shapes of all stages, what is worth most first."""
    found = [("device", "")]
    for at, shape in enumerate(shapes):
        found += [(kind, shape) for kind in LIMITS_S]
        found += [("tests", "")] if at == 0 else []
    return found


def is_done(plan: Plan, stage: Stage, results: dict[str, Any]) -> bool:
    """Whether nothing is to be measured; a model is made only for what is, and again on another machine."""

    def has_figures(one: Stage) -> bool:
        return bool(results.get(one.name, {}).get("status") == "done")

    if stage.kind != "make":
        return has_figures(stage)
    others = [one for one in plan.stages if one.shape == stage.shape and one != stage]
    is_wanted = not all(map(has_figures, others)) or not others
    is_there = (plan.work / stage.shape / "complete").exists()
    return has_figures(stage) and (is_there or not is_wanted)


def earlier(plan: Plan) -> dict[str, Any]:
    """Results of the run that is gone on from, or of the last one here, on the same kind of device."""
    file = plan.resume or plan.work / "results.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    stages: dict[str, Any] = kept.get("stages", {}) if kept.get("device") == plan.device else {}
    return stages


def save(plan: Plan, results: dict[str, Any]) -> None:
    """Write everything so far, beside the models and where it is wanted."""
    file = plan.work / "results.json"
    file.write_text(json.dumps({"device": plan.device, "stages": results}, indent=1))
    shutil.copyfile(file, plan.output / "results.json")


def run_stage(plan: Plan, stage: Stage) -> dict[str, Any]:
    """The stage's figures, or why there are none."""
    result, log = plan.work / "figures.json", plan.work / "logs" / f"{stage.name.replace(' ', '-')}.log"
    result.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.gpu.measuring", stage.kind, plan.device, str(result)]
    if stage.shape:
        command += [stage.shape, str(plan.work / stage.shape)]
    started_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environ(), stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        has_ended = ends_within(process, stage.limit_s)
    facts: dict[str, Any] = {"seconds": round(time.monotonic() - started_s, 1)}
    if plan.device == "cpu":
        facts["not_here"] = NOT_ON_CPU[stage.kind]
    if has_ended and process.returncode == 0:
        return {"status": "done", **facts, "figures": json.loads(result.read_text())}
    facts["error"] = log.read_text(errors="replace").splitlines()[-ERROR_LINES:]
    return {"status": "failed" if has_ended else "overran", **facts}


def environ() -> dict[str, str]:
    """As a worker's: no hub, and threads that spin only briefly at barriers."""
    return os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"} | SPIN_ENVIRONMENT


def ends_within(process: subprocess.Popen[bytes], limit_s: float) -> bool:
    """Wait for the end; past the limit, end the process and the servers that it started."""
    try:
        process.wait(limit_s)
    except subprocess.TimeoutExpired:
        for number in (signal.SIGTERM, signal.SIGKILL):
            os.killpg(process.pid, number)
            try:
                process.wait(GRACE_S)
                break
            except subprocess.TimeoutExpired:
                continue
        _end_group(process.pid)
        return False
    return True


def _end_group(group: int) -> None:
    """Whatever outlived the stage."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
