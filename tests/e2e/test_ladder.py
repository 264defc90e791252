"""A real server in which something is wrong: it answers as ``generate`` does, on a lower step, or it does not start."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
from safetensors.torch import load_file, save_file

from tests.e2e.conftest import Forklift
from tests.service.conftest import LOAD_PATIENCE_S, server_starter
from tests.tiny_models import save_tiny_model
from tests.unit.engine.driver import greedy_reference, load

PROMPTS = ["def f(", "class A:\n    x = ", "import os\n"]
NUM_NEW = 10


class PlantedForklift(Forklift):
    """``PLANTED`` in its environment names what is wrong in it."""

    arguments: ClassVar[tuple[str, ...]] = ("-c", "tests/e2e/gunicorn_planted.py", "wsgi:app")


@pytest.fixture
def start_planted(tmp_path):
    yield from server_starter(tmp_path, PlantedForklift)


def body(prompt: str) -> dict[str, object]:
    return {"prompt": prompt, "max_new_tokens": NUM_NEW, "temperature": 0, "ignore_eos": True, "logprobs": 0}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "settings", "engine", "dropped"),
    [
        ("changed_mask", {}, "serial", ["mixed", "batched"]),
        ("lost_cache", {}, "mixed", ["fused"]),
        ("bad_scale", {"quantization": "int8"}, "mixed", ["quantized"]),
    ],
)
def test_a_server_with_a_fault_answers_as_generate_does_and_says_what_it_left_out(
    start_planted, model_folder, fault, settings, engine, dropped
):
    folder = model_folder("llama")
    server = start_planted({"PLANTED": fault}, model=folder, model_name="m", workers=1, max_batch_size=4, **settings)
    readiness = server.get("/readyz")[1]
    expected = {"model": "m", "engine": engine, "dropped": dropped, "compiled": False}
    assert [{name: one[name] for name in expected} for one in readiness["engines"]] == [expected]
    [model] = server.get("/v1/capabilities")[1]["data"]
    assert (model["engine"], model["dropped"], model["quantization"]) == (engine, dropped, "none")
    reference = load(folder)
    for prompt in PROMPTS:
        found = [entry["id"] for entry in server.post("/complete", json=body(prompt)).json()["logprobs"]]
        assert found == greedy_reference(reference, reference.encode(prompt), NUM_NEW, eos_token_id=None)
    assert [line["step"] for line in server.log_lines("step_failed_check")] == dropped
    text = server.http_connection(30)
    text.request("GET", "/metrics")
    metrics = text.getresponse().read().decode()
    assert f'forklift_engine_loads_total{{engine="{engine}",model="m"}} 1.0' in metrics
    assert all(f'forklift_dropped_steps_total{{model="m",step="{step}"}} 1.0' in metrics for step in dropped)


@pytest.mark.slow
def test_weights_with_nan_stop_the_start_with_one_line_and_code_3(tmp_path):
    folder = save_tiny_model("llama", tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = math.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    starter = server_starter(tmp_path, Forklift)
    server = next(starter)(num_ready=0, model=folder)
    assert server.wait_for_exit(LOAD_PATIENCE_S) == 3
    told = [line for line in server.log().splitlines() if "NaN or infinity in its weight" in line]
    assert any("model.layers.1.mlp.up_proj.weight" in line for line in told)
    assert "Traceback" not in server.log()
    next(starter, None)
