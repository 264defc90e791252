"""A real out of memory fails one request and gives its memory back; a real device assert asks for a new process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from app.core.errors import InternalError
from app.core.work.job_events import Failed, Finished
from tests.service.conftest import REPOSITORY
from tests.unit.engine.driver import generator_of, greedy_job, load, outcome, run

pytestmark = pytest.mark.gpu
# A token behind the vocabulary, as no HTTP request can bring one: the embedding's kernel asserts.
ASSERTING = """
import json, os, sys, threading
from app.core.work.job_events import Failed
from app.core.work.jobs import Job
from app.core.work.sampling_params import SamplingParams
from app.core.settings import load_settings
from app.engine.thread.inference import make_inference

settings = load_settings(
    {"FORKLIFT_MODEL": sys.argv[1], "FORKLIFT_DEVICE": "cuda", "FORKLIFT_DECODE_RUNNER": "eager"}
)
is_ready = threading.Event()
inference = make_inference(settings, 0, lambda state, _: is_ready.set() if state == "ready" else None)
inference.start()
assert is_ready.wait(120)
job = Job("bad", [5, 10**6, 5], SamplingParams(4))
inference.submit(job)
end = job.next_events(60)[-1]
print(json.dumps([isinstance(end, Failed), inference.defect()]), flush=True)
os._exit(0)
"""


def test_out_of_memory_fails_the_request_gives_memory_back_and_the_next_one_works(model_folder, monkeypatch):
    model = load(model_folder("qwen2"), FORKLIFT_DEVICE="cuda")
    generator = generator_of(model, max_running=2)
    run(generator, greedy_job([5, 6, 7], 4))
    before = torch.cuda.memory_reserved()
    prefill = generator.runner.prefill

    def greedy_prefill(*args, **fields):
        blocks = [torch.empty(2**30, dtype=torch.uint8, device="cuda") for _ in range(4096)]
        return prefill(*args, **fields), blocks

    monkeypatch.setattr(generator.runner, "prefill", greedy_prefill)
    failing = greedy_job([5, 6, 7, 8], 4)
    run(generator, failing)
    end = outcome(failing)[1]
    assert isinstance(end, Failed)
    assert isinstance(end.error, InternalError)
    assert generator.guard.poison is None
    assert torch.cuda.memory_reserved() <= before + 2**26
    monkeypatch.undo()
    working = greedy_job([5, 6, 7, 8], 4)
    run(generator, working)
    assert isinstance(outcome(working)[1], Finished)


def test_a_device_assert_marks_the_process_for_replacement(model_folder):
    command = [sys.executable, "-c", ASSERTING, str(model_folder("qwen2"))]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=180)
    assert found.returncode == 0, found.stderr[-2000:]
    has_failed, defect = json.loads(found.stdout.splitlines()[-1])
    assert has_failed
    assert defect is not None


def test_memory_of_a_peak_goes_back_to_the_device(model_folder):
    model = load(model_folder("qwen2"), FORKLIFT_DEVICE="cuda")
    generator = generator_of(model, max_running=64)
    run(generator, greedy_job([30] * 900, 8))
    generator.rest(0.0)
    peak = torch.cuda.memory_reserved()
    generator.rest(1000.0)
    generator.rest(2000.0)
    assert generator.runner.cache.capacity == 256
    assert torch.cuda.memory_reserved() < peak
