"""The GPU benchmark on a CPU with tiny shapes: stages, limits, results that are kept, wheels that are carried."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from benchmarks.gpu import carrying, stages
from benchmarks.gpu.shapes import SHAPES, named
from benchmarks.gpu.stages import Plan, Stage

ROOT = Path(__file__).resolve().parents[3]


def plan_of(
    tmp_path: Path, *planned: Stage, limit_s: float = 300.0, fresh: bool = False, resume: Path | None = None
) -> Plan:
    return Plan(planned, "cpu", tmp_path / "out", tmp_path / "work", limit_s, fresh, resume)


def results_in(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())["stages"]


def measured(tmp_path: Path, *arguments: str) -> tuple[int, dict, str]:
    """Exit code, results and output of a whole dry run."""
    command = [sys.executable, "-m", "benchmarks.gpu", "run", "--dry", *arguments]
    places = ["--output", str(tmp_path / "out"), "--work", str(tmp_path / "work")]
    found = subprocess.run([*command, *places], cwd=ROOT, capture_output=True, text=True, timeout=1900)
    return found.returncode, results_in(tmp_path / "out"), found.stdout + found.stderr


@pytest.mark.chaos
def test_a_dry_run_runs_every_stage_and_goes_on_from_its_results(tmp_path):
    code, results, output = measured(tmp_path)
    assert code == 0, output
    assert len(results) == len(stages.LONE_LIMITS_S) + 2 * len(stages.LIMITS_S)
    assert {found["status"] for found in results.values()} == {"done"}
    assert all(found["not_here"] for found in results.values())
    assert [row["equal"] for row in results["parity qwen2-tiny"]["figures"]["rows"]] == ["1 of 1", "4 of 4"] * 4
    assert results["engine qwen2-tiny"]["figures"]["ttft_ms"] > 0
    assert results["forklift qwen2-tiny"]["figures"]["many"]["ok"] == 4
    checked = results["load qwen2-tiny"]["figures"]
    assert (checked["runner"], checked["dropped"], checked["graph_failure"]) == ("PagedRunner", [], None)
    assert checked["graphs"] > 0
    assert all(row["failure"] is None and row["us"] > 0 for row in results["attention qwen2-tiny"]["figures"]["rows"])
    int8, fp8 = results["quantized qwen2-tiny"]["figures"]["rows"]
    assert int8["serves"] == "int8" and int8["one"] > 0
    assert fp8["serves"].startswith("not: FORKLIFT_QUANTIZATION=fp8 works on GPUs only")
    assert all("skipped" in row["found"] and not row["failed"] for row in results["tests"]["figures"]["rows"])
    assert json.loads(output.splitlines()[-1])["stages"].keys() == results.keys()
    assert "qwen2-tiny: speed" in (tmp_path / "out" / "tables.txt").read_text()
    # On the next machine, which has no model, and wants one stage more.
    del results["attention qwen2-tiny"]
    (tmp_path / "earlier.json").write_text(json.dumps({"device": "cpu", "stages": results}))
    (tmp_path / "other").mkdir()
    code, again, output = measured(tmp_path / "other", "--resume", str(tmp_path / "earlier.json"))
    assert code == 0, output
    ran = [line.split(":")[0] for line in output.splitlines() if " s left" in line]
    assert ran == ["make qwen2-tiny", "attention qwen2-tiny"] and len(again) == len(results) + 1


def test_every_stage_says_what_it_does_not_show_without_a_gpu():
    assert stages.NOT_ON_CPU.keys() == (stages.LONE_LIMITS_S | stages.LIMITS_S).keys()
    assert all(stages.NOT_ON_CPU.values())


@pytest.mark.slow
def test_a_stage_that_overruns_is_ended_and_reported_and_the_others_go_on(tmp_path):
    code = stages.run(plan_of(tmp_path, Stage("make", "qwen2-tiny", 0.2), Stage("device", "", 60)))
    results = results_in(tmp_path / "out")
    assert code == 1
    assert {name: found["status"] for name, found in results.items()} == {
        "make qwen2-tiny": "overran",
        "device": "done",
    }
    assert results["device"]["figures"]["copy_gb_per_s"] > 0


@pytest.mark.slow
def test_a_stage_that_fails_leaves_the_end_of_its_log(tmp_path):
    assert stages.run(plan_of(tmp_path, Stage("parity", "qwen2-tiny", 60))) == 1
    failed = results_in(tmp_path / "out")["parity qwen2-tiny"]
    assert failed["status"] == "failed"
    assert "model" in failed["error"][-1]


def test_a_second_run_measures_only_what_is_missing(tmp_path, monkeypatch):
    ran = []

    def run_stage(plan: Plan, stage: Stage) -> dict:
        ran.append(stage.name)
        (plan.work / stage.shape).mkdir(parents=True, exist_ok=True)
        (plan.work / stage.shape / "complete").touch()
        return {"status": "done" if len(ran) != 1 else "overran", "figures": {}}

    monkeypatch.setattr(stages, "run_stage", run_stage)
    planned = Stage("make", "qwen2-tiny", 9), Stage("make", "codegen-tiny", 9)
    assert [stages.run(plan_of(tmp_path, *planned, fresh=fresh)) for fresh in (False, False, False, True)] == [
        1,
        0,
        0,
        0,
    ]
    both = ["make qwen2-tiny", "make codegen-tiny"]
    assert ran == [*both, "make qwen2-tiny", *both]


def test_a_run_on_another_machine_goes_on_and_makes_only_the_models_that_it_needs(tmp_path, monkeypatch):
    ran = []
    done_at_once = {"status": "done", "figures": {}}
    monkeypatch.setattr(stages, "run_stage", lambda _plan, stage: ran.append(stage.name) or done_at_once)
    planned = [Stage(kind, shape, 9) for shape in ("qwen2-tiny", "codegen-tiny") for kind in ("make", "load")]
    done = {stage.name: done_at_once for stage in planned if stage.name != "load codegen-tiny"}
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps({"device": "cpu", "stages": done}))
    assert stages.run(plan_of(tmp_path, *planned, resume=file)) == 0
    assert ran == ["make codegen-tiny", "load codegen-tiny"]
    assert results_in(tmp_path / "out").keys() == {stage.name for stage in planned}


def test_no_stage_starts_that_could_end_too_late(tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "run_stage", lambda *_: {"status": "done", "figures": {}})
    stages.run(plan_of(tmp_path, Stage("make", "qwen2-tiny", 50), Stage("make", "codegen-tiny", 5), limit_s=20))
    statuses = [found["status"] for found in results_in(tmp_path / "out").values()]
    assert statuses == ["not started", "done"]


def test_shapes_and_stages_are_named_and_others_refused(tmp_path):
    assert named("tiny") == ["qwen2-tiny", "codegen-tiny"]
    assert all(named(name) == [name] for name in SHAPES)
    with pytest.raises(SystemExit, match="no shape 'qwen9'"):
        named("qwen9")
    options = {
        "device": "cpu",
        "output": tmp_path,
        "work": tmp_path,
        "limit_s": 9,
        "stage_limit_s": None,
        "fresh": False,
        "resume": None,
    }
    with pytest.raises(SystemExit, match="no stage 'fly'"):
        Plan.of(argparse.Namespace(shapes="tiny", stages="fly", **options))


def test_what_is_worth_most_comes_first():
    kinds = stages.ordered(["a", "b"])
    assert kinds[:4] == [("device", ""), ("make", "a"), ("load", "a"), ("engine", "a")]
    assert kinds.index(("tests", "")) < kinds.index(("make", "b"))


def test_what_is_carried_leaves_torch_and_transformers_to_the_machine():
    carried = {line.split()[0].lower() for line in carrying.requirements()}
    assert {"flask", "gunicorn", "pydantic", "google-re2", "llguidance", "uvicorn"} <= carried
    assert not carried & set(carrying.PRESENT)


@pytest.mark.slow
def test_the_environment_has_the_wheels_and_sees_what_lies_beside_it(tmp_path):
    wheel(tmp_path / "forklift_probe-1.0-py3-none-any.whl")
    python = carrying.environment(tmp_path, tmp_path / "environment")
    command = [str(python), "-c", "import forklift_probe, flask; print(forklift_probe.__file__)"]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.stdout.startswith(str(tmp_path / "environment")), found.stderr


def test_a_folder_without_wheels_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no wheel"):
        carrying.environment(tmp_path, tmp_path / "environment")


def wheel(file: Path) -> None:
    """A wheel of one empty module."""
    name = "forklift_probe-1.0.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("forklift_probe.py", "")
        archive.writestr(f"{name}/METADATA", "Metadata-Version: 2.1\nName: forklift-probe\nVersion: 1.0\n")
        archive.writestr(
            f"{name}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}/RECORD", "")
