"""Recorded steps give the tokens of ``generate``; what cannot be recorded, or is wrong, is done step by step."""

from __future__ import annotations

import random

import pytest
import torch
from structlog.testing import capture_logs

from app.engine.runners.graphs.decode_graphs import DecodeGraphs
from app.engine.runners.graphs.op_recorder import OpRecorder, OpRecording, UncapturableError
from app.engine.runners.graphs.recorder import FixedPass
from tests.tiny_models import SLOT_FAMILIES
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.parity_plays import (
    play_adapters,
    play_growth,
    play_joins,
    play_many,
    require_tokens_of_generate,
)


@torch.inference_mode()
def recording_of(work) -> OpRecording:
    return OpRecorder().record(work)


@pytest.mark.parametrize(
    "family", ["llama", *(pytest.param(one, marks=pytest.mark.slow) for one in SLOT_FAMILIES if one != "llama")]
)
def test_greedy_output_with_joins_and_shared_prefixes_equals_generate(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    engine = generator_of(model, max_running=5, chunk=70, runner="graphs")
    play_joins(model, engine, TokenLog(monkeypatch))
    assert len(engine.runner.graphs) >= 3
    assert engine.runner.graphs.failure is None


@pytest.mark.parametrize("max_running", [1, *(pytest.param(many, marks=pytest.mark.slow) for many in (16, 64))])
def test_batches_up_to_64_are_replayed(model_folder, monkeypatch, max_running):
    model = load(model_folder("llama"))
    engine = generator_of(model, max_running=max_running, runner="graphs")
    play_many(model, engine, TokenLog(monkeypatch), max_running)
    assert (max_running, 256, False) in engine.runner.graphs._recordings


def test_growth_and_shrinking_in_the_middle_drop_what_was_recorded_and_change_no_token(model_folder, monkeypatch):
    model, log, told = load(model_folder("qwen2")), TokenLog(monkeypatch), []
    engine = generator_of(model, max_running=3, runner="graphs")
    engine.runner.graphs.on_outcome = told.append
    jobs = play_growth(model, engine, log)
    assert engine.cache.capacity == 1024
    engine._scheduler.rows.forget_beyond(256)
    engine.cache.shrink(256)
    run(engine, again := greedy_job(jobs[3].prompt_ids, 30))
    require_tokens_of_generate(model, log, [again])
    assert told.count("dropped") >= 2 and set(told) == {"recorded", "dropped"}


@pytest.mark.slow
def test_a_recording_that_outlives_the_growth_of_the_cache_would_be_wrong(model_folder, monkeypatch):
    """What the test above proves: without the comparison of places, tokens are others."""
    model, log = load(model_folder("qwen2")), TokenLog(monkeypatch)
    generator = generator_of(model, max_running=2, runner="graphs")
    monkeypatch.setattr(type(generator.runner), "_places", lambda _runner: ())
    # The growth comes while rows of the first bucket are still decoding.
    short, long = (
        greedy_job(random_prompt(random.Random(1), 20), 60),
        greedy_job(random_prompt(random.Random(2), 300), 4),
    )
    generator.add(short)
    for _ in range(10):
        generator.step()
    run(generator, long)
    assert log.of(short) != greedy_reference(model, short.prompt_ids, 60, eos_token_id=None)


@pytest.mark.slow
def test_rows_with_adapters_and_without_are_those_of_merged_models(model_folder, tmp_path, monkeypatch):
    model = load(model_folder("llama"))
    engine = generator_of(model, max_running=3, chunk=16, runner="graphs")
    play_adapters(model_folder("llama"), engine, TokenLog(monkeypatch), model, tmp_path)
    assert {is_adapted for *_, is_adapted in engine.runner.graphs._recordings} == {True, False}
    assert engine.runner.graphs.failure is None


@pytest.mark.parametrize(
    ("text", "work"),
    [
        ("reads a number", lambda x: x * x.sum().item()),
        ("reads a number", lambda x: x if (x > 0).any() else -x),
        ("shape depends", lambda x: x[x > 0]),
        ("shape depends", lambda x: (x > 0).nonzero()),
        ("from the host", lambda x: x[torch.tensor([1, 0])]),
        ("random", lambda x: x + torch.rand(3)),
    ],
)
def test_what_no_graph_can_hold_is_refused(text, work):
    x = torch.randn(3)
    with pytest.raises(UncapturableError, match=text):
        recording_of(lambda: work(x))


@torch.inference_mode()
def test_a_replay_reads_what_is_in_memory_now_and_runs_no_python():
    x, calls = torch.tensor([1.0, 2.0, 3.0]), []

    def work() -> torch.Tensor:
        calls.append(1)
        return (x[None] @ x[:, None]).view(1) + x[:1].expand(1)

    recording = recording_of(work)
    x.copy_(torch.tensor([2.0, 0.0, 1.0]))
    recording.replay()
    assert recording.output.tolist() == [7.0]
    assert calls == [1]


def test_memory_that_moved_is_found_out():
    x = torch.randn(3)
    recording = recording_of(lambda: x + 1)
    x.set_(torch.randn(4)[1:])
    with pytest.raises(UncapturableError, match="has moved"):
        recording.replay()


def fixed_pass(numbers: torch.Tensor, value: float, key: str = "a", factor: float = 2.0) -> FixedPass:
    """Logits that are the number that was put in and a multiple of it."""
    return FixedPass(
        key, lambda: numbers.fill_(value), lambda: numbers.zero_(), lambda: torch.cat((numbers, numbers * factor))[None]
    )


@torch.inference_mode()
@pytest.mark.parametrize(
    ("fault", "outcome", "text"),
    [("stale", "wrong", "a replay differs by"), ("raises", "failed", "raises RuntimeError: no capture")],
)
def test_a_pass_whose_recording_is_no_good_is_done_step_by_step_and_told(monkeypatch, fault, outcome, text):
    if fault == "stale":
        monkeypatch.setattr(OpRecording, "replay", lambda _recording: None)
    else:
        monkeypatch.setattr(OpRecorder, "record", lambda *_: (_ for _ in ()).throw(RuntimeError("no capture\nmore")))
    graphs, numbers, told = DecodeGraphs(OpRecorder()), torch.zeros(1), []
    graphs.on_outcome = told.append
    with capture_logs() as lines:
        for value in (1.0, 3.0, 5.0):
            assert graphs.run(fixed_pass(numbers, value), (1,)).tolist() == [[value, 2 * value]]
    assert told == [outcome] and len(graphs) == 0
    [line] = lines
    assert (line["event"], line["shape"], line["log_level"]) == ("decode_graph_failed", "a", "warning")
    assert text in line["reason"] and text in str(graphs.failure)


@torch.inference_mode()
def test_no_more_time_or_memory_is_taken_than_there_is(monkeypatch):
    numbers = torch.zeros(1)
    graphs = DecodeGraphs(OpRecorder(), most_s=0.0)
    assert graphs.run(fixed_pass(numbers, 1.0), (1,)).tolist() == [[1.0, 2.0]]
    assert len(graphs) == 0
    recorder = OpRecorder()
    recorder.most_bytes = 1
    graphs = DecodeGraphs(recorder)
    for key in ("a", "b"):
        assert graphs.run(fixed_pass(numbers, 1.0, key), (1,)).tolist() == [[1.0, 2.0]]
    assert len(graphs) == 1


@torch.inference_mode()
def test_a_step_that_gives_no_numbers_proves_nothing_and_refuses_nothing():
    numbers = torch.zeros(1)
    graphs = DecodeGraphs(OpRecorder())
    assert graphs.run(fixed_pass(numbers, float("nan")), (1,)).isnan().all()
    assert len(graphs) == 0
    for value in (1.0, 2.0):
        assert graphs.run(fixed_pass(numbers, value), (1,)).tolist() == [[value, 2 * value]]
    assert len(graphs) == 1
