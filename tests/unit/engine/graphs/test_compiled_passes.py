"""Compiled steps serve where they are right and faster; what is wrong, raises or takes too long is named and left."""

from __future__ import annotations

import random
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from structlog.testing import capture_logs

from app.engine.checks import steps
from app.engine.runners.choose import Compiling, compiling_of, paged_runner
from app.engine.runners.graphs import compiled_passes
from app.engine.runners.graphs.compiled_passes import NAME, CompiledPasses
from app.engine.runners.graphs.decode_graphs import DecodeGraphs
from app.engine.runners.graphs.op_recorder import OpRecorder
from app.engine.runners.graphs.recorder import FixedPass
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.parity_plays import engine_on, require_tokens_of_generate
from tests.unit.engine.test_preparation import prepared

CPU = torch.device("cpu")


def fixed_pass(numbers: torch.Tensor, value: float, compiled, key: str = "a") -> FixedPass:
    """Logits that are the number that was put in, and others that grow with it."""

    def run() -> torch.Tensor:
        return torch.cat((numbers, numbers * 2, numbers - 1))[None]

    return FixedPass(key, lambda: numbers.fill_(value), lambda: numbers.zero_(), run, compiled)


def ran(passes: CompiledPasses, compiled, *, values=(1.0, 3.0, 5.0)) -> DecodeGraphs:
    """Steps of one shape, each of which must give its own numbers."""
    numbers = torch.zeros(1)
    graphs = DecodeGraphs(OpRecorder(), refine=passes.refine)
    for value in values:
        found = graphs.run(fixed_pass(numbers, value, partial(compiled, numbers)), (1,))
        assert found.tolist() == [[value, 2 * value, value - 1]]
    return graphs


def right(numbers: torch.Tensor) -> torch.Tensor:
    return torch.stack((numbers, numbers + numbers, numbers - 1), dim=1)


def wrong(numbers: torch.Tensor) -> torch.Tensor:
    return right(numbers) + torch.tensor(0.5) * numbers.sign()


def raising(_numbers: torch.Tensor) -> torch.Tensor:
    raise RuntimeError("no Triton here\nat all")


@torch.inference_mode()
@pytest.mark.parametrize("is_faster", [True, False])
def test_what_is_right_serves_where_it_is_faster(monkeypatch, is_faster):
    monkeypatch.setattr(CompiledPasses, "_is_faster", lambda *_: is_faster)
    passes, made = CompiledPasses(), []
    graphs = ran(passes, lambda numbers: made.append(1) or right(numbers))
    recording = graphs._recordings["a"]
    assert any("stack" in str(call.run) for call in recording._calls) == is_faster
    # To warm up and to be recorded: no replay runs it.
    assert len(made) == 2 and passes.failure is None


@torch.inference_mode()
@pytest.mark.parametrize(
    ("compiled", "text"), [(wrong, "a replay differs by"), (raising, "raises RuntimeError: no Triton here")]
)
def test_what_is_wrong_or_raises_is_named_and_nothing_more_is_compiled(compiled, text):
    passes = CompiledPasses()
    with capture_logs() as lines:
        graphs = ran(passes, compiled)
    [line] = lines
    assert (line["event"], line["shape"], line["log_level"]) == ("compiled_step_failed", "a", "warning")
    assert text in line["reason"] and "\n" not in line["reason"]
    assert text in str(passes.failure) and not passes.has_time
    assert len(graphs) == 1 and graphs.failure is None


@torch.inference_mode()
def test_what_takes_longer_than_all_may_is_not_used_and_the_log_says_so(monkeypatch):
    clock = iter(range(0, 10_000, 70))
    monkeypatch.setattr(compiled_passes, "time", SimpleNamespace(monotonic=clock.__next__, perf_counter=lambda: 0.0))
    passes = CompiledPasses(60.0)
    with capture_logs() as lines:
        graphs = ran(passes, right)
    assert [line["event"] for line in lines] == ["compiled_steps_not_used"]
    assert lines[0]["reason"] == "one took 70 s, 60 are for all"
    assert passes.failure is None and not passes.has_time
    assert not any("stack" in str(call.run) for call in graphs._recordings["a"]._calls)


@torch.inference_mode()
def test_no_other_is_compiled_where_the_longest_so_far_would_not_fit(monkeypatch):
    clock = iter(range(0, 10_000, 35))
    monkeypatch.setattr(compiled_passes, "time", SimpleNamespace(monotonic=clock.__next__, perf_counter=lambda: 0.0))
    passes = CompiledPasses(60.0)
    ran(passes, right)
    assert not passes.has_time and passes.failure is None


@torch.inference_mode()
def test_behind_a_load_nothing_is_compiled():
    passes = CompiledPasses()
    passes.close()
    graphs = ran(passes, raising)
    assert passes.failure is None and len(graphs) == 1


def test_steps_are_compiled_on_a_gpu_unless_they_are_not_to_be_or_adapters_change_them():
    settings = SimpleNamespace(compile="auto", adapters=None, load_timeout_s=100.0)
    assert compiling_of(settings, CPU) is None
    there = torch.device("cuda")
    assert compiling_of(settings, there).most_s == compiled_passes.MOST_S
    assert compiling_of(SimpleNamespace(**{**vars(settings), "compile": "always"}), there).most_s == 50.0
    assert compiling_of(SimpleNamespace(**{**vars(settings), "compile": "never"}), there) is None
    assert compiling_of(SimpleNamespace(**{**vars(settings), "adapters": "a"}), there) is None


def faulty(fault: str):
    """A compiler whose models are wrong in one row's logits, or cannot be made."""

    def make(model):
        def compiled(**fields):
            if fault == "raises":
                raise RuntimeError("cannot be compiled")
            output = model(**fields)
            output.logits = output.logits.roll(1, -1)
            return output

        return compiled

    return Compiling(make, 600.0)


@pytest.mark.parametrize("fault", ["wrong", "raises"])
def test_a_load_does_without_compiled_steps_that_are_no_good_and_answers_rightly(model_folder, monkeypatch, fault):
    monkeypatch.setattr(steps, "compiling_of", lambda *_: faulty(fault))
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"), FORKLIFT_DECODE_RUNNER="paged", FORKLIFT_MAX_BATCH_SIZE="3")
    assert ready.dropped == (NAME,)
    [line] = [line for line in lines if line["event"] == "compiled_step_failed"]
    assert ("differs" if fault == "wrong" else "cannot be compiled") in line["reason"]
    model, log = load(model_folder("llama")), TokenLog(monkeypatch)
    jobs = [greedy_job(random_prompt(random.Random(seed), 30), 8) for seed in range(4)]
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 8, eos_token_id=None)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("family", ["llama", "gemma3"])
def test_steps_as_torch_traces_them_give_the_tokens_of_generate(model_folder, monkeypatch, family, backend):
    """All of torch's compiler but the making of kernels, which takes a GPU."""
    monkeypatch.setattr(CompiledPasses, "_is_faster", lambda *_: True)
    model = load(model_folder(family), FORKLIFT_MAX_CONTEXT_TOKENS="512")
    torch._dynamo.reset()
    traced = []

    def make(plain):
        compiled = torch.compile(plain, backend=backend, dynamic=False)
        return lambda **fields: traced.append(1) or compiled(**fields)

    with capture_logs() as lines:
        runner = paged_runner(model.checkpoint, 3, 512, compiling=Compiling(make, 600.0))
    assert not [line for line in lines if line["event"] == "compiled_step_failed"]
    assert runner.left_out == () and len(traced) >= 2 * len(runner.graphs) > 0
    num_traced = len(traced)
    rng, log = random.Random(2), TokenLog(monkeypatch)
    jobs = [greedy_job(random_prompt(rng, rng.randrange(1, 90)), 20) for _ in range(5)]
    run(engine_on(model, runner, chunk=40), *jobs)
    require_tokens_of_generate(model, log, jobs)
    assert len(traced) == num_traced, "nothing is compiled, and nothing of it runs, once the load is over"


@pytest.mark.slow
def test_compiled_steps_are_part_of_what_a_load_checks(model_folder, monkeypatch):
    torch._dynamo.reset()
    monkeypatch.setattr(CompiledPasses, "_is_faster", lambda *_: True)
    compiling = Compiling(partial(torch.compile, backend="eager", dynamic=False), 600.0)
    monkeypatch.setattr(steps, "compiling_of", lambda *_: compiling)
    ready = prepared(model_folder("qwen2"), FORKLIFT_DECODE_RUNNER="paged", FORKLIFT_MAX_BATCH_SIZE="2")
    assert (ready.dropped, ready.engine_name) == ((), "mixed")
    assert ready.graphs is not None and ready.graphs.failure is None and len(ready.graphs) > 0
