"""On a cache in blocks the engine gives the tokens of ``generate``, recorded or not, with little memory or much."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from structlog.testing import capture_logs

from app.core.errors import ModelLoadError
from app.engine.generation.batched import BatchedEngine
from app.engine.kv.blocks.block_pages import NOBODYS
from app.engine.runners.bucketed import BucketedRunner
from app.engine.runners.graphs.decode_graphs import DecodeGraphs
from app.engine.runners.graphs.op_recorder import OpRecorder
from app.engine.runners.paged import paged_sizes as sizes_module
from app.engine.runners.paged.gathered_ways import GatheredHeadsWay, GatheredWay
from app.engine.runners.paged.paged_runner import PagedRunner
from app.engine.runners.paged.paged_sizes import num_blocks_within
from app.models.text_model import TextModel
from tests.unit.engine.driver import TokenLog, greedy_job, load, random_prompt, run
from tests.unit.engine.parity_plays import (
    engine_on,
    play_adapters,
    play_growth,
    play_joins,
    play_many,
    require_answers_of_the_eager_runner,
    require_tokens_of_generate,
    schedules,
)
from tests.unit.engine.test_preparation import prepared
from tests.unit.engine.test_windowed import require_answers_of_generate

FAMILIES = ("qwen2", "glm", "gpt2")
WINDOWED = ("mistral", "gemma3", "gpt_oss", "llama4", "gemma3n", "gemma2")


def engine_of(
    model: TextModel,
    *,
    rows: int = 5,
    chunk: int = 70,
    drafts: int = 0,
    num_blocks: int = 400,
    block_tokens: int = 16,
    way: type[GatheredWay] = GatheredWay,
    records: bool = True,
) -> BatchedEngine:
    graphs = DecodeGraphs(OpRecorder()) if records else None
    runner = PagedRunner(
        model.checkpoint,
        rows,
        model.context_tokens,
        ways=[way()],
        num_blocks=num_blocks,
        block_tokens=block_tokens,
        graphs=graphs,
    )
    return engine_on(model, runner, chunk=chunk, drafts=drafts)


def require_all_given_back(engine: BatchedEngine) -> None:
    engine._scheduler.rows.forget_beyond(0)
    assert engine.cache.pages.num_free == engine.cache.pages.num_blocks - 1


@pytest.mark.parametrize(
    ("family", "records"),
    [
        ("llama", True),
        *(pytest.param(one, True, marks=pytest.mark.slow) for one in FAMILIES),
        *(pytest.param(one, False, marks=pytest.mark.slow) for one in FAMILIES),
    ],
)
def test_greedy_output_with_joins_and_shared_prefixes_equals_generate(model_folder, monkeypatch, family, records):
    model = load(model_folder(family))
    engine = engine_of(model, records=records)
    jobs = play_joins(model, engine, TokenLog(monkeypatch))
    assert sum(job.usage.cached_tokens for job in jobs) > 0
    if records:
        assert len(engine.runner.graphs) >= 3 and engine.runner.graphs.failure is None
    require_all_given_back(engine)


@pytest.mark.slow
@pytest.mark.parametrize("family", WINDOWED)
def test_windows_sinks_pieces_and_caps_equal_generate(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    engine = engine_of(model, chunk=40)
    require_answers_of_generate(model, engine, TokenLog(monkeypatch), random.Random(1))
    # Experts are chosen by what depends on numbers: their steps are made one by one.
    if family not in ("gpt_oss", "llama4"):
        assert len(engine.runner.graphs) > 0 and engine.runner.graphs.failure is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "chunk", "drafts", "num_blocks", "block_tokens"),
    [(4, 33, 0, 70, 16), (3, 20, 5, 400, 16), (16, 512, 0, 300, 32)],
)
def test_drafts_small_memory_and_other_blocks_change_no_token(
    model_folder, monkeypatch, rows, chunk, drafts, num_blocks, block_tokens
):
    model, log = load(model_folder("llama")), TokenLog(monkeypatch)
    engine = engine_of(
        model,
        rows=rows,
        chunk=chunk,
        drafts=drafts,
        num_blocks=num_blocks,
        block_tokens=block_tokens,
        way=GatheredHeadsWay,
    )
    long = random_prompt(random.Random(1), 500)
    prompts = ([40, 41, 42, 43] * 8, long, [*long[:300], 9, 10], [7, 300, 9], long[:290], long)
    jobs = [greedy_job(prompt, 25) for prompt in prompts]
    run(engine, *jobs)
    require_tokens_of_generate(model, log, jobs)
    require_all_given_back(engine)


@pytest.mark.slow
def test_rows_that_grow_in_the_middle_change_no_token_and_move_nothing(model_folder, monkeypatch):
    model, told = load(model_folder("qwen2")), []
    engine = engine_of(model, rows=3, chunk=256)
    engine.runner.graphs.on_outcome = told.append
    play_growth(model, engine, TokenLog(monkeypatch))
    assert set(told) == {"recorded"}
    require_all_given_back(engine)


@pytest.mark.slow
@pytest.mark.parametrize("max_running", [1, 2, 16, 64])
def test_batches_up_to_64_are_replayed(model_folder, monkeypatch, max_running):
    model = load(model_folder("llama"))
    engine = engine_of(model, rows=max_running, num_blocks=1000)
    play_many(model, engine, TokenLog(monkeypatch), max_running)
    assert max_running in {num_rows for num_rows, *_ in engine.runner.graphs._recordings}


@pytest.mark.slow
def test_rows_with_adapters_and_without_are_those_of_merged_models(model_folder, tmp_path, monkeypatch):
    model = load(model_folder("llama"))
    engine = engine_of(model, rows=3, chunk=16)
    play_adapters(model_folder("llama"), engine, TokenLog(monkeypatch), model, tmp_path)
    assert {is_adapted for *_, is_adapted in engine.runner.graphs._recordings} == {True, False}


@pytest.fixture(scope="module")
def llama(model_folder):
    return load(model_folder("llama"))


@pytest.mark.slow
@settings(max_examples=25)
@given(schedule=schedules())
@pytest.mark.parametrize("runner", ["graphs", "paged"])
def test_any_schedule_gives_the_texts_and_ends_of_the_eager_runner(llama, runner, schedule):
    require_answers_of_the_eager_runner(llama, schedule, runner)


def test_only_the_newest_entries_and_nobodys_block_are_written(llama):
    engine = engine_of(llama, rows=4)
    runner = engine.runner
    with torch.inference_mode():
        for row in range(4):
            runner.prefill(row, [20 + row] * 5, 0)
        before = runner.cache.row_layers[-1].keys.clone()
        runner.decode([[9], [9], [9]], [5, 3, 4])
    changed = (runner.cache.row_layers[-1].keys != before).any(dim=-1).any(dim=-1).nonzero().tolist()
    tables = runner.cache.pages.tables
    assert sorted(changed) == sorted([[NOBODYS, 0], [tables[0][0], 5], [tables[1][0], 3], [tables[2][0], 4]])


def test_what_failed_leaves_no_number_that_others_meet(llama, monkeypatch):
    """NaN in a block that is given back would reach whoever has it next, through entries that are masked."""
    engine, log = engine_of(llama, rows=2, records=False), TokenLog(monkeypatch)
    broken = greedy_job([5, 6, 7], 20)
    engine.add(broken)
    engine.step()
    for layer in engine.cache.row_layers:
        layer.values[engine.cache.pages.tables[0][0]] = float("nan")
    while not broken.has_ended:
        engine.step()
    good = greedy_job([50, 60, 70, 80], 8)
    run(engine, good)
    require_tokens_of_generate(llama, log, [good])


def test_the_memory_that_blocks_take_is_a_share_of_what_is_free(llama, monkeypatch):
    checkpoint = llama.checkpoint
    # 2 layers, keys and values, 2 heads of 16, float32
    block_bytes = 16 * 2 * 2 * 2 * 16 * 4
    monkeypatch.setattr(sizes_module, "free_bytes", lambda _device: 100 * block_bytes)
    assert num_blocks_within(checkpoint, 64, 512, 16, 0.5) == 50
    assert num_blocks_within(checkpoint, 1, 320, 16, 0.9) == 22
    with pytest.raises(ModelLoadError, match="lower FORKLIFT_MAX_CONTEXT_TOKENS"):
        num_blocks_within(checkpoint, 1, 1024, 16, 0.5)


@pytest.mark.slow
def test_a_cache_in_blocks_is_asked_for_and_its_memory_told(model_folder):
    environ = {"FORKLIFT_DECODE_RUNNER": "paged", "FORKLIFT_MAX_BATCH_SIZE": "4", "FORKLIFT_MAX_CONTEXT_TOKENS": "128"}
    ready = prepared(model_folder("llama"), **environ)
    assert (ready.engine_name, ready.dropped) == ("mixed", ())
    assert isinstance(ready.engine.runner, PagedRunner)
    assert ready.kv_memory.max_bytes == ready.engine.cache.num_bytes
    assert ready.kv_growth_bytes == 0
    windowed = prepared(model_folder("gemma3"), **environ)
    assert isinstance(windowed.engine.runner, PagedRunner) and windowed.dropped == ()
    # Its attention cannot be replaced.
    assert isinstance(prepared(model_folder("xglm"), **environ).engine.runner, BucketedRunner)


def test_a_kernel_that_is_wrong_in_one_head_is_named_and_not_used(model_folder, monkeypatch):
    attend = GatheredHeadsWay._plain

    def without_head(way, *args):
        found = attend(way, *args).clone()
        found[:, 1] = 0
        return found

    monkeypatch.setattr(GatheredHeadsWay, "_plain", without_head)
    with capture_logs() as lines:
        ready = prepared(model_folder("llama"), FORKLIFT_DECODE_RUNNER="paged", FORKLIFT_MAX_BATCH_SIZE="3")
    [line] = [line for line in lines if line["event"] == "attention_way_wrong"]
    assert line["way"] == GatheredHeadsWay.name and "most in head 1" in line["reason"]
    assert ready.dropped == (GatheredHeadsWay.name,)
    model, log = load(model_folder("llama")), TokenLog(monkeypatch)
    jobs = [greedy_job(random_prompt(random.Random(seed), 30), 8) for seed in range(4)]
    run(ready.engine, *jobs)
    require_tokens_of_generate(model, log, jobs)
