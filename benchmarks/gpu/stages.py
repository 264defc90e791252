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
# Most seconds per kind of stage; in this order for each shape.
LIMITS_S = {"make": 150, "parity": 150, "engine": 150, "forklift": 150, "transformers": 150, "flask": 100}
GRACE_S = 15
ERROR_LINES = 12


@dataclass(frozen=True)
class Stage:
    """One measurement of one shape (none for that of the device)."""

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

    @classmethod
    def of(cls, options: argparse.Namespace) -> Plan:
        kinds = options.stages.split(",") if options.stages else ["device", *LIMITS_S]
        if unknown := [kind for kind in kinds if kind != "device" and kind not in LIMITS_S]:
            raise SystemExit(f"error: no stage {unknown[0]!r}; there are device, {', '.join(LIMITS_S)}")
        stages = [Stage("device", "", options.stage_limit_s or 60)] if "device" in kinds else []
        for shape in named(options.shapes):
            limits = {kind: options.stage_limit_s or limit_s for kind, limit_s in LIMITS_S.items() if kind in kinds}
            stages += [Stage(kind, shape, limit_s) for kind, limit_s in limits.items()]
        work = options.work.resolve()
        return cls(tuple(stages), options.device, Path(options.output).resolve(), work, options.limit_s, options.fresh)


def run(plan: Plan) -> int:
    """Run what is not done yet, print the tables and one JSON line; 0 where every stage is done."""
    plan.output.mkdir(parents=True, exist_ok=True)
    (plan.work / "logs").mkdir(parents=True, exist_ok=True)
    end_s = time.monotonic() + plan.limit_s
    results = {} if plan.fresh else earlier(plan)
    for stage in plan.stages:
        if results.get(stage.name, {}).get("status") == "done":
            continue
        left_s = end_s - time.monotonic()
        results[stage.name] = run_stage(plan, stage) if left_s > stage.limit_s else {"status": "not started"}
        save(plan, results)
        print(f"{stage.name}: {results[stage.name]['status']}, {end_s - time.monotonic():.0f} s left", flush=True)
    save(plan, results)
    from benchmarks.gpu.tables import show_all

    show_all(results, plan.output / "tables.txt")
    return 0 if all(results[stage.name]["status"] == "done" for stage in plan.stages) else 1


def earlier(plan: Plan) -> dict[str, Any]:
    """Results of the last run on the same kind of device."""
    file = plan.work / "results.json"
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
