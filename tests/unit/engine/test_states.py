"""Models whose layers keep states: rows that join, leave, fail and share beginnings answer as ``generate``."""

from __future__ import annotations

import random
import sys
from importlib import import_module

import pytest
import torch
import transformers
from structlog.testing import capture_logs

from app.core.settings import load_settings
from app.engine.generation.batch_options import BatchOptions
from app.engine.generation.batched import BatchedEngine
from app.engine.generation.plan import Chunk
from app.engine.kv.snapshots import Kept, Snapshots, wished
from app.engine.runners.states import row_convolutions
from app.engine.runners.states.state_hosts import StateHost, find_hosts
from app.engine.runners.states.state_passes import pieces_of
from app.engine.runners.states.state_runner import StateRunner
from app.models.checkpoint.source import find_source
from app.models.forecast import predict
from app.models.text_model import TextModel
from tests.thinned import few_of
from tests.tiny_states import STATEFUL
from tests.unit.engine.driver import TokenLog, greedy_job, greedy_reference, load, random_prompt, run
from tests.unit.engine.test_preparation import prepared
from tests.unit.engine.test_windowed import require_answers_of_generate

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*falling back to its reference PyTorch.*", "ignore:.*use_mamba_kernels.*"),
    pytest.mark.skipif(
        tuple(map(int, transformers.__version__.split(".")[:2])) < (5, 24),
        reason="caches of older versions keep states otherwise: the check at the load leaves such models to generate",
    ),
]
# A convolution and a recurrence in some layers; a convolution alone.
TYPICAL = ("qwen3_next", "lfm2")
FAMILIES = [*TYPICAL, *(pytest.param(name, marks=pytest.mark.slow) for name in STATEFUL if name not in TYPICAL)]
NUM_NEW = 12


def engine_of(model: TextModel, *, rows: int = 5, chunk: int = 40, snapshots: int | None = None) -> BatchedEngine:
    number = 2 * rows if snapshots is None else snapshots
    runner = StateRunner(model.checkpoint, rows, model.context_tokens, most_new=max(chunk, 1), num_snapshots=number)
    return BatchedEngine(model, BatchOptions(rows, chunk), runner)


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_that_join_and_leave_answer_as_generate_does(model_folder, monkeypatch, family):
    model = load(model_folder(family))
    require_answers_of_generate(model, engine_of(model), TokenLog(monkeypatch), random.Random(1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.chaos) for seed in range(1, 6))])
@pytest.mark.parametrize(("rows", "chunk", "snapshots"), [(2, 7, 1), (16, 33, 4), (3, 64, 0), (1, 256, 2)])
@pytest.mark.parametrize("family", ["qwen3_5", "mamba2", "falcon_h1", "lfm2"])
def test_any_schedule_answers_as_generate_does(model_folder, monkeypatch, family, rows, chunk, snapshots, seed):
    model = load(model_folder(family))
    engine = engine_of(model, rows=rows, chunk=chunk, snapshots=snapshots)
    require_answers_of_generate(model, engine, TokenLog(monkeypatch), random.Random(seed))


@pytest.mark.parametrize("family", few_of(["qwen3_next", "mamba"], 1))
def test_a_prompt_goes_on_from_states_that_were_kept_and_from_those_of_a_row_that_ended(
    model_folder, monkeypatch, family
):
    model, log = load(model_folder(family)), TokenLog(monkeypatch)
    engine = engine_of(model, rows=2, snapshots=8)
    prompt = random_prompt(random.Random(3), 260)
    first = greedy_job(prompt, NUM_NEW)
    run(engine, first)
    answered = [*prompt, *log.of(first), 7, 8]
    parted = [*prompt[:200], *random_prompt(random.Random(4), 9)]
    jobs = [greedy_job(some, NUM_NEW) for some in (answered, prompt, [*prompt, 5, 6], parted, [*parted[:205], 9, 9])]
    for job in jobs:
        run(engine, job)
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)
    # Behind the last token that was fed; before the prompt's last one; in between; where two prompts parted.
    assert [job.usage.cached_tokens for job in jobs] == [len(answered) - 3, 259, 259, 128, 200]


def test_a_busy_rows_states_are_copied(model_folder, monkeypatch):
    model, log = load(model_folder("qwen3_next")), TokenLog(monkeypatch)
    engine = engine_of(model, rows=3)
    prompt = random_prompt(random.Random(3), 90)
    busy = greedy_job(prompt, NUM_NEW)
    engine.add(busy)
    while len(log.of(busy)) < 3:
        engine.step()
    as_it_is, before = greedy_job([*prompt, *log.of(busy)[:2], 5, 6], NUM_NEW), greedy_job([*prompt, 7], NUM_NEW)
    run(engine, as_it_is, before)
    for job in (busy, as_it_is, before):
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)
    assert [as_it_is.usage.cached_tokens, before.usage.cached_tokens] == [92, 89]


def test_a_pass_that_fails_half_way_leaves_the_states_of_all_others_as_they_were(model_folder, monkeypatch):
    model, log = load(model_folder("qwen3_next")), TokenLog(monkeypatch)
    engine = engine_of(model, rows=3)
    last = model.checkpoint.model.model.layers[-1]
    usual = last.mlp.forward
    victim = random_prompt(random.Random(4), 37)

    def failing(states: torch.Tensor) -> torch.Tensor:
        if states.shape[1] >= len(victim) - 1:
            raise RuntimeError("too long")
        return usual(states)

    jobs = [greedy_job(random_prompt(random.Random(seed), 20), NUM_NEW) for seed in (5, 6)]
    run_some(engine, jobs, 4)
    monkeypatch.setattr(last.mlp, "forward", failing)
    lost = greedy_job(victim, NUM_NEW)
    engine.add(lost)
    with capture_logs():
        engine.step()
    monkeypatch.setattr(last.mlp, "forward", usual)
    again = greedy_job(victim, NUM_NEW)
    run(engine, again)
    assert not log.of(lost) and again.usage.cached_tokens == 0
    for job in (*jobs, again):
        assert log.of(job) == greedy_reference(model, job.prompt_ids, NUM_NEW, eos_token_id=None)


def run_some(engine: BatchedEngine, jobs: list, num_steps: int) -> None:
    for job in jobs:
        engine.add(job)
    for _ in range(num_steps):
        engine.step()


@pytest.mark.parametrize("family", ["qwen3_5", "lfm2", "mamba2"])
def test_a_model_with_states_is_served_in_rows_and_its_memory_foretold(model_folder, family):
    environ = {"FORKLIFT_MAX_BATCH_SIZE": "4", "FORKLIFT_PREFILL_CHUNK_TOKENS": "64"}
    environ["FORKLIFT_PROMPT_LOOKUP"] = "3"
    ready = prepared(model_folder(family), **environ)
    assert isinstance(ready.engine, BatchedEngine) and ready.engine_name == "mixed"
    assert ready.settings.num_draft_tokens == 0 and not ready.dropped
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder(family)), **environ})
    assert predict(find_source(settings, None), settings).kv_bytes == ready.kv_memory.max_bytes


def test_a_scan_that_begins_with_nothing_is_told_from_one_that_goes_on(model_folder):
    for family, goes_on in (("mamba", False), ("mamba2", True), ("lfm2", True)):
        hosts = find_hosts(load(model_folder(family)).checkpoint)
        assert {host.goes_on for host in hosts} == {goes_on}
        assert all(isinstance(host, StateHost) and host.states == (0,) for host in hosts)


def test_a_model_without_states_has_no_hosts(model_folder):
    with pytest.raises(ValueError, match="no module says that it keeps states"):
        find_hosts(load(model_folder("qwen2")).checkpoint)


def test_pieces_end_where_states_are_kept_and_are_single_tokens_where_a_layer_cannot_go_on():
    first, later = Chunk(3, [1] * 6, 0, snapshots=((4, 9),)), Chunk(4, [1] * 3, 5)
    rows, *rest = pieces_of(2, [first, later], True)
    assert (rows.end, rows.loads, rows.keeps) == (2, (0, 2), (0,))
    assert [(piece.begin, piece.end, piece.keeps) for piece in rest] == [(2, 6, (9,)), (6, 8, (3,)), (8, 11, (4,))]
    assert [(piece.is_first, piece.loads) for piece in rest] == [(True, None), (False, None), (False, (4, 1))]
    ends = [piece.end for piece in pieces_of(0, [first, later], False)]
    assert ends == [4, 5, 6, 7, 8, 9]


def test_slots_are_taken_anew_where_they_were_not_used_for_longest():
    snapshots, a, b = Snapshots(4, 2), Kept(), Kept()
    assert {snapshots.add(a, 10), snapshots.add(a, 20)} == {4, 5}
    snapshots.use(a, 10)
    assert snapshots.add(b, 10) is not None and sorted(a.slots) == [10]
    snapshots.forget_beyond(a, 5)
    assert not a.slots and snapshots.add(b, 11) is not None and sorted(b.slots) == [10, 11]
    assert Snapshots(4, 0).add(a, 10) is None


def test_states_are_kept_before_the_last_token_where_prompts_part_and_a_few_times_between():
    assert wished(5, 0, 0) == []
    assert wished(255, 0, 0) == [254]
    assert wished(256, 0, 0) == [128, 255]
    assert wished(1000, 0, 37) == [37, 384, 768, 999]
    assert wished(1000, 384, 400) == [400, 768, 999]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_convolutions_are_those_of_the_family(dtype):
    family, generator = import_module("transformers.models.qwen3_next.modeling_qwen3_next"), torch.Generator()
    weight, bias = (torch.randn(shape, generator=generator).to(dtype) for shape in ((12, 4), (12,)))
    tokens = torch.randn((3, 12, 9), generator=generator).to(dtype)
    for activation, some in ((None, bias), ("silu", None)):
        torch.testing.assert_close(
            row_convolutions.causal_conv1d_fn(tokens, weight, some, activation),
            family.causal_conv1d_fn(tokens, weight, some, activation),
        )
        states = [torch.randn((3, 12, 4), generator=torch.Generator().manual_seed(1)).to(dtype) for _ in range(2)]
        for num_new in (1, 3):
            torch.testing.assert_close(
                row_convolutions.causal_conv1d_update(tokens[:, :, :num_new], states[0], weight, some, activation),
                family.causal_conv1d_update(tokens[:, :, :num_new], states[1], weight, some, activation),
            )
            assert torch.equal(*states)


def test_behind_a_pass_a_family_has_its_own_convolutions(model_folder):
    hosts = find_hosts(load(model_folder("qwen3_next")).checkpoint)
    family = sys.modules[type(hosts[0].module).__module__]
    usual = family.causal_conv1d_fn
    with row_convolutions.Convolutions([hosts[0].module]).replaced():
        assert family.causal_conv1d_fn is row_convolutions.causal_conv1d_fn
    assert family.causal_conv1d_fn is usual
