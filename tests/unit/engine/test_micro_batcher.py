"""Encoders: equal to the pipeline and to a plain forward, alone or together; when texts wait for others."""

from __future__ import annotations

import random
import shutil
import time
from itertools import combinations, pairwise

import pytest
import torch
from transformers import pipeline

from app.core.errors import InternalError, RequestError, RequestTimeoutError
from app.core.settings import load_settings
from app.core.tasks.encoder_jobs import Encoded, EncodeOptions, EncoderInput, EncoderJob
from app.core.work.job_events import Failed, Finished
from app.engine.encoding.micro_batcher import MicroBatcher, cheapest_cuts
from app.engine.loading.build import prepare
from app.models.checkpoint.loader import load_checkpoint
from app.models.encoders.encoder_model import EncoderModel
from tests.proposals import assert_proposals
from tests.tiny_models import write_sentence_files

TEXTS = [
    "def [MASK](x):",
    "return [MASK]",
    "a [MASK] b [MASK] c",
    "class " * 9 + "[MASK] model tokenizer: " * 2,
    "[MASK]",
]
SENTENCES = ["def load(folder):", "a", "the tokenizer of a model with random weights " * 2]


def load(folder, **environ) -> EncoderModel:
    settings = load_settings({"FORKLIFT_MODEL": str(folder), **environ})
    return EncoderModel("tiny", load_checkpoint(settings, lambda _: None), settings.max_context_tokens)


@pytest.fixture(scope="module")
def bert(model_folder):
    return load(model_folder("bert"))


def work(batcher, jobs):
    for job in jobs:
        batcher.add(job)
    while batcher.has_work:
        batcher.step()
    for job in jobs:
        assert isinstance(job.next_events(0)[-1], Finished)
    return [job.encoded for job in jobs]


def fill(model, texts, top_k=5, **options):
    ids = [model.encode_masked(text) for text in texts]
    encoded = work(
        MicroBatcher(model, **options), [EncoderJob("t", EncoderInput(one), EncodeOptions(top_k)) for one in ids]
    )
    return [model.filled(one, result) for one, result in zip(ids, encoded, strict=True)]


def embed(model, texts, **options):
    jobs = [EncoderJob("t", EncoderInput(model.encode(text))) for text in texts]
    return torch.tensor([result.vector for result in work(MicroBatcher(model, **options), jobs)])


@pytest.mark.parametrize("top_k", [1, 5, 100])
def test_masks_are_filled_as_transformers_pipeline_fills_them(bert, model_folder, top_k):
    reference = pipeline("fill-mask", model=str(model_folder("bert")))
    alone = [fill(bert, [text], top_k)[0] for text in TEXTS]
    together = fill(bert, TEXTS, top_k)
    for text, one, other in zip(TEXTS, alone, together, strict=True):
        expected = reference(text, top_k=top_k)
        assert_proposals(one, expected)
        assert_proposals(other, expected)


@pytest.mark.parametrize("max_tokens", [1, 30, 10_000])
def test_passes_of_any_size_give_the_same(bert, max_tokens):
    assert_proposals(fill(bert, TEXTS, max_tokens=max_tokens), [fill(bert, [text])[0] for text in TEXTS])


def plain_tokens(model, text):
    ids = torch.tensor([model.encode(text)])
    with torch.inference_mode():
        return model.checkpoint.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state[0]


POOLS = {"mean_tokens": lambda h: h.mean(0), "cls_token": lambda h: h[0], "lasttoken": lambda h: h[-1]}


@pytest.mark.parametrize("mode", POOLS)
def test_vectors_are_pooled_as_the_models_files_say(model_folder, mode, tmp_path):
    folder = shutil.copytree(model_folder("sentence"), tmp_path / "model")
    write_sentence_files(folder, mode)
    model = load(folder)
    expected = torch.stack([POOLS[mode](plain_tokens(model, text)) for text in SENTENCES])
    expected = torch.nn.functional.normalize(expected, dim=-1)
    assert torch.allclose(embed(model, SENTENCES), expected, atol=1e-5)
    assert torch.allclose(embed(model, SENTENCES, max_items=1), expected, atol=1e-5)


def test_an_encoder_that_says_nothing_gets_the_mean_as_it_is(model_folder):
    model = load(model_folder("encoder"))
    expected = torch.stack([plain_tokens(model, text).mean(0) for text in SENTENCES])
    assert torch.allclose(embed(model, SENTENCES), expected, atol=1e-5)


class Clock:
    """Time that only sleeping moves."""

    def __init__(self):
        self.now_s = time.monotonic()
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now_s += seconds


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def passes(bert, monkeypatch):
    """The number of texts in each pass over the model."""
    sizes: list[int] = []
    forward = MicroBatcher._forward
    monkeypatch.setattr(MicroBatcher, "_forward", lambda self, jobs: sizes.append(len(jobs)) or forward(self, jobs))
    return sizes


def job_at(clock, length=3, age_s=0.0, **options) -> EncoderJob:
    job = EncoderJob("t", EncoderInput([4] * length), EncodeOptions(1), **options)
    job.timings.created_s = clock.now_s - age_s
    return job


def batcher_of(bert, clock, **options) -> MicroBatcher:
    return MicroBatcher(bert, clock=clock, sleep=clock.sleep, **options)


def test_a_text_that_waits_alone_is_encoded_at_once(bert, clock, passes):
    work(batcher_of(bert, clock), [job_at(clock)])
    assert (passes, clock.sleeps) == ([1], [])


def test_several_wait_for_more_until_one_deadline_from_the_first(bert, clock, passes):
    batcher = batcher_of(bert, clock)
    for age_s in (0.0004, 0.0002):
        batcher.add(job_at(clock, age_s=age_s))
    batcher.step()
    assert passes == [] and clock.sleeps == [pytest.approx(0.0006, abs=1e-6)]
    batcher.add(job_at(clock))
    batcher.step()
    assert passes == [3] and len(clock.sleeps) == 1 and not batcher.has_work


def test_texts_that_waited_during_a_pass_do_not_wait_again(bert, clock, passes):
    work(batcher_of(bert, clock), [job_at(clock, age_s=0.05), job_at(clock)])
    assert (passes, clock.sleeps) == ([2], [])


def test_a_full_batch_does_not_wait(bert, clock, passes):
    work(batcher_of(bert, clock, max_items=4), [job_at(clock) for _ in range(8)])
    assert (passes, clock.sleeps) == ([4, 4], [])


def test_a_pass_holds_no_more_padded_tokens_than_the_bound(bert, clock, passes):
    work(batcher_of(bert, clock, max_tokens=20), [job_at(clock, length, age_s=1) for length in (9, 2, 3, 12, 2)])
    assert passes == [3, 1, 1]


def test_many_texts_take_no_more_of_a_step_than_a_tenth_of_a_second_while_other_models_wait(bert, clock, monkeypatch):
    # A token takes 2 ms, so that 32 texts of 10 tokens would be a gap of 0.64 s in the streams of the others.
    took_s = []

    def slow(batcher, jobs):
        took_s.append(0.002 * sum(len(job.prompt_ids) for job in jobs))
        clock.now_s += took_s[-1]
        return [Encoded() for _ in jobs]

    monkeypatch.setattr(MicroBatcher, "_encode", slow)
    batcher, jobs = batcher_of(bert, clock), [job_at(clock, length=10, age_s=1) for _ in range(80)]
    for job in jobs:
        batcher.add(job)
    steps_s = []
    while batcher.has_work:
        took_s.clear()
        batcher.step(is_shared=len(steps_s) < 8)
        steps_s.append(sum(took_s))
    assert max(steps_s[:8]) < 0.15
    assert steps_s[8] == pytest.approx(0.64), "alone it takes more, until it is known to take long"
    assert max(steps_s[9:]) <= 0.3


def test_a_text_that_comes_while_many_are_read_waits_for_no_long_step(bert, clock, monkeypatch):
    # A token takes 2 ms: 500 texts of 10 tokens are 10 s of work, 32 of them 0.64 s.
    def slow(batcher, jobs):
        clock.now_s += 0.002 * sum(len(job.prompt_ids) for job in jobs)
        return [Encoded() for _ in jobs]

    monkeypatch.setattr(MicroBatcher, "_encode", slow)
    batcher, large = batcher_of(bert, clock), object()
    for job in (many := [job_at(clock, length=10) for _ in range(500)]):
        job.turn = large
        batcher.add(job)
    waits_s = []
    while batcher.has_work and len(waits_s) < 10:
        batcher.step()
        started_s = clock.now_s
        batcher.add(lone := job_at(clock, length=10))
        batcher.step()
        waits_s.append(clock.now_s - started_s)
        assert lone.has_ended
    assert max(waits_s[1:]) <= 0.3
    assert not all(job.has_ended for job in many)


def test_a_long_text_is_encoded_in_a_shared_step_of_its_own(bert, clock, passes):
    batcher = batcher_of(bert, clock)
    for length in (60, 60, 60):
        batcher.add(job_at(clock, length, age_s=1))
    batcher.step(is_shared=True)
    assert passes == [1]


def test_cancelled_and_late_texts_leave_without_a_pass(bert, clock, passes):
    cancelled, late = job_at(clock), job_at(clock, deadline_s=clock.now_s - 1)
    cancelled.cancel(RequestError("gone"))
    batcher = batcher_of(bert, clock)
    batcher.add(cancelled)
    batcher.add(late)
    batcher.step()
    assert passes == [] and not batcher.has_work
    assert cancelled.next_events(0)[0].error.message == "gone"
    assert isinstance(late.next_events(0)[0].error, RequestTimeoutError)


def test_a_text_that_breaks_the_pass_fails_alone(bert, clock):
    good, bad = job_at(clock, age_s=1), EncoderJob("t", EncoderInput([10**6]), EncodeOptions(1))
    bad.timings.created_s = clock.now_s - 1
    batcher = batcher_of(bert, clock)
    batcher.add(good)
    batcher.add(bad)
    batcher.step()
    assert isinstance(good.next_events(0)[-1], Finished)
    [failed] = bad.next_events(0)
    assert isinstance(failed, Failed) and isinstance(failed.error, InternalError)
    assert batcher.guard.poison is None


def test_all_can_be_failed(bert, clock):
    batcher = batcher_of(bert, clock)
    jobs = [job_at(clock) for _ in range(3)]
    for job in jobs:
        batcher.add(job)
    batcher.fail_all(RequestError("over"))
    assert [job.next_events(0)[0].error.message for job in jobs] == ["over"] * 3
    assert not batcher.has_work


@pytest.mark.parametrize("family", ["bert", "sentence"])
def test_an_encoder_is_prepared_for_the_batcher(model_folder, family):
    ready = prepare(load_settings({"FORKLIFT_MODEL": str(model_folder(family))}), lambda _: None)
    assert isinstance(ready.engine, MicroBatcher)
    assert ready.kv_memory is None


def test_an_int8_encoder_is_close_to_float32(model_folder):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("encoder")), "FORKLIFT_QUANTIZATION": "int8"})
    rounded = embed(prepare(settings, lambda _: None).model, SENTENCES)
    exact = embed(load(model_folder("encoder")), SENTENCES)
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=-1).min() > 0.98


def test_an_int8_encoder_fills_masks(model_folder):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("bert")), "FORKLIFT_QUANTIZATION": "int8"})
    [rounded] = fill(prepare(settings, lambda _: None).model, TEXTS[:1], top_k=100)
    [exact] = fill(load(model_folder("bert")), TEXTS[:1], top_k=100)
    scores = {one["token"]: one["score"] for one in exact}
    common = [one for one in rounded if one["token"] in scores]
    assert len(common) > 90
    assert max(abs(one["score"] - scores[one["token"]]) for one in common) < 5e-3


def test_what_is_cancelled_while_another_group_runs_leaves(bert, clock, monkeypatch):
    short, long = job_at(clock, 2, age_s=1), job_at(clock, 9, age_s=1)
    forward = MicroBatcher._forward
    monkeypatch.setattr(
        MicroBatcher, "_forward", lambda self, jobs: long.cancel(RequestError("gone")) or forward(self, jobs)
    )
    batcher = batcher_of(bert, clock, max_tokens=10)
    batcher.add(long)
    batcher.add(short)
    batcher.step()
    assert isinstance(short.next_events(0)[-1], Finished)
    assert long.next_events(0)[-1].error.message == "gone"


def cost_of(lengths, ends, pass_tokens):
    return sum(pass_tokens + lengths[end - 1] * (end - first) for first, end in pairwise([0, *ends]))


@pytest.mark.parametrize("seed", range(20))
def test_no_other_way_to_part_texts_costs_less(seed):
    rng = random.Random(seed)
    lengths = sorted(rng.randint(1, 40) for _ in range(8))
    found = cheapest_cuts(lengths, 200, 26)
    ways = [[*cuts, 8] for size in range(8) for cuts in combinations(range(1, 8), size)]
    allowed = [ends for ends in ways if all(lengths[b - 1] * (b - a) <= 200 for a, b in pairwise([0, *ends]))]
    assert found in allowed
    assert cost_of(lengths, found, 26) == min(cost_of(lengths, ends, 26) for ends in allowed)


def test_a_text_above_the_bound_is_a_pass_of_its_own_and_none_is_lost():
    assert cheapest_cuts([5, 5, 300, 300], 200, 26) == [2, 3, 4]
    assert cheapest_cuts([7], 1, 26) == [1] and cheapest_cuts([], 1, 26) == []
