"""Families that count positions or distances from the length of the cache: rows together answer as ``generate``."""

from __future__ import annotations

import random
from types import SimpleNamespace

import pytest
import torch
from structlog.testing import capture_logs
from transformers import AutoConfig

from app.engine.checks.plain_cache import turning_length
from app.engine.kv.cache import KVLayer
from app.engine.runners.placing import aligned, positions
from app.engine.runners.placing.aligned import AlignedWindow
from tests.tiny_windowed import SMALL
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.test_preparation import prepared
from tests.unit.engine.test_windowed import require_answers_of_generate

ENVIRON = {"FORKLIFT_MAX_BATCH_SIZE": "5", "FORKLIFT_PREFILL_CHUNK_TOKENS": "40", "FORKLIFT_COMPILE": "never"}
ENGINES = {
    "plbart": "mixed",
    "blenderbot-small": "mixed",
    "mvp": "batched",
    "trocr": "batched",
    "bloom": "batched",
    "gpt_neo": "batched",
    "roberta": "mixed",
    "phimoe": "mixed",
}
# Positions at a module in passes laid end to end; rows that end at one place, with windows; positions of tokens.
TYPICAL = ("plbart", "gpt_neo")
FAMILIES = [name if name in TYPICAL else pytest.param(name, marks=pytest.mark.slow) for name in ENGINES]


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_join_and_leave_answer_as_generate_does(model_folder, monkeypatch, family):
    ready = prepared(model_folder(family), **ENVIRON)
    assert (ready.engine_name, ready.dropped) == (ENGINES[family], ())
    require_answers_of_generate(ready.model, ready.engine, TokenLog(monkeypatch), random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["plbart", "bloom", "gpt_neo"])
def test_drafts_in_several_rows_change_no_token(model_folder, monkeypatch, family):
    ready = prepared(model_folder(family), **ENVIRON, FORKLIFT_PROMPT_LOOKUP="3")
    log = TokenLog(monkeypatch)
    assert ready.engine_name == ENGINES[family]
    prompts = [random_prompt(random.Random(seed), length) * 3 for seed, length in ((3, 5), (4, 9), (5, 21))]
    jobs = [greedy_job(prompt, 20) for prompt in prompts]
    run(ready.engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(ready.model, job.prompt_ids, 20, eos_token_id=None)


def test_a_family_that_counts_positions_from_tokens_is_asked_as_generate_asks_it_and_the_log_says_so(model_folder):
    with capture_logs() as lines:
        prepared(model_folder("roberta"), **ENVIRON)
    [told] = [line for line in lines if line["event"] == "positions_count_from_0"]
    assert told["log_level"] == "warning"


@pytest.mark.parametrize(("context", "expected"), [(64, None), (65, 64)])
def test_texts_that_are_turned_otherwise_beyond_a_length_are_told_from_others(context, expected):
    sizes = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    told = {**sizes, "original_max_position_embeddings": 64}
    config = AutoConfig.for_model("phi3", **{**SMALL, "original_max_position_embeddings": 64, "rope_parameters": told})
    checkpoint = SimpleNamespace(model=SimpleNamespace(config=config))
    assert turning_length(SimpleNamespace(checkpoint=checkpoint, context_tokens=context)) == expected


def test_positions_of_another_row_are_found_at_the_load(model_folder, monkeypatch):
    looking_up = positions.looking_up
    monkeypatch.setattr(positions, "looking_up", lambda inner, at: looking_up(inner, at.flip(0, 1)))
    ready = prepared(model_folder("plbart"), **ENVIRON)
    assert (ready.engine_name, ready.dropped) == ("serial", ("mixed", "batched"))


def test_rows_that_do_not_end_at_one_place_are_found_at_the_load(model_folder, monkeypatch):
    monkeypatch.setattr(aligned.AlignedWindow, "write", aligned.Window.write)
    assert prepared(model_folder("bloom"), **ENVIRON).engine_name == "serial"


def test_rows_are_read_from_their_ends():
    window = AlignedWindow()
    layer = KVLayer(3, 16, window)
    for row, length in ((0, 2), (1, 5)):
        window.set(row, [0], length)
        layer.update(*[torch.arange(1.0, length + 1).reshape(1, 1, length, 1) + 10 * row] * 2)
    window.set(0, [2, 5], 1)
    keys, _ = layer.update(*[torch.tensor([3.0, 16.0]).reshape(2, 1, 1, 1)] * 2)
    assert keys[0, 0, -3:, 0].tolist() == [1, 2, 3]
    assert keys[1, 0, :, 0].tolist() == [11, 12, 13, 14, 15, 16]


@torch.no_grad()
def test_a_model_finds_its_modules_as_they_were_behind_a_pass(model_folder):
    model = load(model_folder("plbart")).checkpoint.model
    [host] = positions.position_hosts(model)
    with positions.Positions(model).told(torch.tensor([[3], [7]])) as others:
        found = host(torch.tensor([[9], [9]]), 5)
    assert others == {} and "forward" not in host.__dict__
    assert torch.equal(found, torch.cat([host(torch.tensor([[9]]), at) for at in (3, 7)]))
