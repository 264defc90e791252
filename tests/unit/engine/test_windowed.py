"""Models whose layers see the last entries, pieces, sinks or others' entries: rows together answer as ``generate``."""

from __future__ import annotations

import random

import pytest

from app.core.errors import RequestError
from app.core.settings import load_settings
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.kv.reach import Reach
from app.engine.kv.ring_layer import RingLayer
from app.engine.runners.row_attention import refuse_other_windows
from app.engine.runners.windowed import WindowedRunner
from app.models.checkpoint.layer_kinds import FULL, LayerKind
from app.models.checkpoint.source import find_source
from app.models.forecast import predict
from app.models.text_model import TextModel
from tests.thinned import few_of
from tests.tiny_windowed import LONG, WINDOW, WINDOWED
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.test_preparation import prepared

NUM_NEW = 24
# The kinds that there are: windows in every layer and in some, sinks, pieces, others' entries, caps.
TYPICAL = ("mistral", "gemma3", "gpt_oss", "llama4")
FAMILIES = [*TYPICAL, *(pytest.param(name, marks=pytest.mark.slow) for name in WINDOWED if name not in TYPICAL)]


def engine_of(model: TextModel, *, rows: int = 5, chunk: int = 40, drafts: int = 0) -> BatchedEngine:
    runner = WindowedRunner(model.checkpoint, rows, model.context_tokens, most_new=max(chunk, drafts + 1))
    return BatchedEngine(model, BatchOptions(rows, chunk, num_draft_tokens=drafts), runner)


def require_answers_of_generate(model: TextModel, engine: BatchedEngine, log: TokenLog, rng: random.Random) -> None:
    """Prompts up to six windows, some of which share their beginnings, join and leave at random steps."""
    prompts = [random_prompt(rng, rng.choice((1, 3, 17, WINDOW, WINDOW + 1, 65, 110, 200))) for _ in range(8)]
    prompts += [prompts[0], [*prompts[5], 9], prompts[3][:40] + prompts[2], prompts[5]]
    jobs = [greedy_job(prompt, rng.randrange(1, NUM_NEW)) for prompt in prompts]
    cancelled, to_come = greedy_job(random_prompt(rng, 150), NUM_NEW), list(jobs)
    engine.add(cancelled)
    engine.step()
    cancelled.cancel(RequestError("gone"))
    while to_come or engine.has_work:
        if to_come and rng.random() < 0.4:
            engine.add(to_come.pop(0))
        engine.step()
    for job, prompt in zip(jobs, prompts, strict=True):
        assert log.of(job) == greedy_reference(model, prompt, job.params.max_new_tokens, eos_token_id=None)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_join_and_leave_answer_as_generate_does(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    require_answers_of_generate(model, engine_of(model), TokenLog(monkeypatch), random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(1, 6))])
@pytest.mark.parametrize(("rows", "chunk", "drafts"), [(2, 7, 0), (16, 33, 0), (3, 64, 4), (1, 256, 3)])
@pytest.mark.parametrize("family", ["gemma3", "llama4", "gpt_oss", "gemma3n"])
def test_any_schedule_answers_as_generate_does(model_folder, monkeypatch, family, rows, chunk, drafts, seed):
    model = load(model_folder(family))
    engine = engine_of(model, rows=rows, chunk=chunk, drafts=drafts)
    require_answers_of_generate(model, engine, TokenLog(monkeypatch), random.Random(seed))


@pytest.mark.parametrize("family", few_of(["gemma3", "llama4"], 1))
def test_a_prefix_is_taken_up_where_its_entries_are_there_and_read_again_where_they_are_gone(
    model_folder, monkeypatch, family
):
    model, log = load(model_folder(family)), TokenLog(monkeypatch)
    engine = engine_of(model, rows=2)
    prompt = random_prompt(random.Random(3), 200)
    longer, other = [*prompt, 11, 12], [*prompt[:170], *random_prompt(random.Random(4), 30)]
    jobs = [greedy_job(some, NUM_NEW) for some in (prompt, longer, other, prompt)]
    for job in jobs:
        run(engine, job)
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)
    # 226 entries were written: at 170 somebody would see what the last 40 of them overwrote.
    assert [job.usage.cached_tokens for job in jobs] == [0, 200, 0, 199]


def test_a_busy_rows_prefix_is_copied_with_its_rings(model_folder, monkeypatch):
    model, log = load(model_folder("gemma3")), TokenLog(monkeypatch)
    engine = engine_of(model, rows=2)
    prompt = random_prompt(random.Random(3), 200)
    busy, other = greedy_job(prompt, NUM_NEW), greedy_job([*prompt, 7], NUM_NEW)
    engine.add(busy)
    while len(log.of(busy)) < 3:
        engine.step()
    run(engine, other)
    for job in (busy, other):
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)
    assert other.usage.cached_tokens == 200


def test_rings_hold_what_is_seen_and_a_piece_more(model_folder):
    engine = engine_of(load(model_folder("gemma3")))
    run(engine, greedy_job(random_prompt(random.Random(3), 500), 2))
    rings = [layer.capacity for layer in engine.cache.row_layers if isinstance(layer, RingLayer)]
    assert rings == [WINDOW + 40] * 2
    assert engine.cache.max_bytes == sum(
        layer.bytes_per_token * size * 5
        for layer, size in zip(engine.cache.row_layers, (72, 1024, 72, 1024), strict=True)
    )


@pytest.mark.slow
def test_windows_of_512_in_five_of_six_layers_take_less_than_a_third_at_a_context_of_16384(model_folder):
    environ = {"FORKLIFT_MAX_BATCH_SIZE": "1", "FORKLIFT_MAX_CONTEXT_TOKENS": str(LONG)}
    ready = prepared(model_folder("gemma3_long"), **environ)
    run(ready.engine, greedy_job(random_prompt(random.Random(3), LONG - 10), 5))
    cache = ready.engine.cache
    full = sum(layer.bytes_per_token for layer in cache.row_layers) * LONG
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("gemma3_long")), **environ})
    assert predict(find_source(settings, None), settings).kv_bytes == cache.max_bytes == cache.num_bytes
    assert 0.15 * full < cache.num_bytes < 0.3 * full


@pytest.mark.slow
def test_memory_given_back_changes_no_answer(model_folder, monkeypatch):
    model, log = load(model_folder("gemma3")), TokenLog(monkeypatch)
    engine = engine_of(model, rows=2)
    prompts = [random_prompt(random.Random(seed), 200) for seed in (3, 4)]
    for prompt in (prompts[0][:30], prompts[0], prompts[1], prompts[0][:30], prompts[0]):
        job = greedy_job(prompt, NUM_NEW)
        run(engine, job)
        engine._scheduler.rows.forget_beyond(64)
        engine.cache.shrink(64)
        assert log.of(job) == greedy_reference(model, prompt, NUM_NEW, eos_token_id=None)


@pytest.mark.parametrize("family", ["gemma3", "gpt_oss", "mistral"])
def test_a_model_with_windows_is_served_in_rows_and_its_memory_foretold(model_folder, family):
    environ = {"FORKLIFT_MAX_BATCH_SIZE": "4", "FORKLIFT_PREFILL_CHUNK_TOKENS": "64"}
    ready = prepared(model_folder(family), **environ)
    assert isinstance(ready.engine, BatchedEngine) and ready.engine_name == "mixed"
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder(family)), **environ})
    assert predict(find_source(settings, None), settings).kv_bytes == ready.kv_memory.max_bytes


def test_a_layer_that_sees_other_entries_than_its_config_says_is_refused():
    refuse_other_windows(LayerKind(32), 32, 1024)
    refuse_other_windows(FULL, 4096, 1024)
    refuse_other_windows(LayerKind(32, by_chunk=True), None, 1024)
    with pytest.raises(ValueError, match="does not say how far"):
        refuse_other_windows(LayerKind(32), None, 1024)
    with pytest.raises(ValueError, match="sees 32 entries where the config says None"):
        refuse_other_windows(FULL, 32, 1024)


@pytest.mark.parametrize(
    ("num_written", "num_shared", "usable"), [(100, 3, 3), (101, 60, 0), (101, 61, 61), (150, 110, 110), (150, 109, 0)]
)
def test_what_was_overwritten_is_not_taken_up(num_written, num_shared, usable):
    assert Reach.of([(100, 40), (200, 40)]).usable(num_written, num_shared) == usable
    assert Reach.of([]).usable(num_written, num_shared) == num_shared
