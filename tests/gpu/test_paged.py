"""On the GPU: each way to attend that it has gives what attention in float32 gives, and blocks are given back."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from app.engine.runners.choose import query_ways
from app.engine.runners.paged.paged_sizes import BLOCK_TOKENS
from app.engine.runners.paged.query_rows import Prepared, RowPlaces, Rule, reference
from tests.unit.engine.driver import TokenLog, generator_of, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.graphs.test_query_ways import Case, cases, rows_of

pytestmark = pytest.mark.gpu
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@torch.inference_mode()
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ["varlen", "FlexAttention", "gathered", "gathered, heads by torch"])
def test_each_way_is_attention_in_float32(name, dtype):
    """What a device or a version of torch does not have raises, and is not chosen."""
    way = next(one for one in query_ways(torch.device("cuda"), 8) if one.name == name)
    # FlexAttention is compiled for each, which takes some seconds.
    some = cases()[5:10] if dtype == torch.bfloat16 else cases()[5:7]
    for seed, case in enumerate([Case(2, 2, 128, (1, 700, 64)), Case(7, 2, 64, (900,)), *some]):
        # What a GPU's cache has.
        case = replace(case, block_tokens=BLOCK_TOKENS["cuda"])
        query, keys, values, places, rule = rows_of(case, seed, dtype)
        query, keys, values = (one.cuda() for one in (query, keys, values))
        there = RowPlaces(places.tables.cuda(), places.lengths.cuda(), places.block_tokens)
        rule = Rule(rule.scale, rule.kind, None if rule.sinks is None else rule.sinks.cuda(), rule.softcap)
        if not way.serves(rule):
            continue
        try:
            found = way.attend(query, keys, values, Prepared(there), rule)
        except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
            pytest.xfail(f"{way.name}, {dtype}: {(str(error).splitlines() or [''])[0]}")
        expected = reference(query, keys, values, there, rule)
        torch.testing.assert_close(found.float(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "gemma3", "gpt_oss"])
def test_blocks_change_no_token(model_folder, monkeypatch, family):
    model = load(model_folder(family), FORKLIFT_DEVICE="cuda", FORKLIFT_DTYPE="float32")
    log, rng = TokenLog(monkeypatch), random.Random(1)
    engine = generator_of(model, max_running=4, chunk=40, runner="paged")
    prompts = [random_prompt(rng, rng.choice((1, 17, 65, 200))) for _ in range(6)]
    jobs = [greedy_job(prompt, 12) for prompt in [*prompts, prompts[0], [*prompts[3], 9]]]
    run(engine, *jobs)
    for job in jobs:
        assert log.of(job) == greedy_reference(model, job.prompt_ids, 12, eos_token_id=None)
    engine._scheduler.rows.forget_beyond(0)
    assert engine.cache.pages.num_free == engine.cache.pages.num_blocks - 1
