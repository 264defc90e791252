"""Filters agree with transformers' warpers; draws follow the distribution and the row's own seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from app.core.jobs import SamplingParams
from app.engine import sampling
from app.engine.sampling import RowSampler, sample

CPU = torch.device("cpu")


def row(vocab_size: int, prompt: list[int] | None = None, **params: float) -> RowSampler:
    return RowSampler(SamplingParams(8, **params), prompt or [0], vocab_size, CPU)


def ours(logits: torch.Tensor, sampler: RowSampler, monkeypatch: pytest.MonkeyPatch) -> torch.Tensor:
    """The distribution that a token is drawn from, ``(vocab,)``."""
    seen = {}
    draw = sampling._draw

    def spy(kept: torch.Tensor, rows: list[RowSampler]) -> torch.Tensor:
        seen["kept"] = kept
        return draw(kept, rows)

    ids = {}
    filtered = sampling._filtered

    def spy_filtered(*args):
        kept, order = filtered(*args)
        ids["order"] = order
        return kept, order

    with monkeypatch.context() as patch:
        patch.setattr(sampling, "_draw", spy)
        patch.setattr(sampling, "_filtered", spy_filtered)
        sample(logits, [sampler])
    probabilities = seen["kept"].softmax(-1)[0]
    if "order" not in ids:
        return probabilities
    return torch.zeros(logits.shape[-1]).scatter(0, ids["order"][0], probabilities)


def theirs(logits: torch.Tensor, params: SamplingParams, prompt: list[int]) -> torch.Tensor:
    processors = LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    return processors(torch.tensor([prompt]), logits.clone()).softmax(-1)[0]


@pytest.mark.parametrize("vocab_size", [50, 3000])
@pytest.mark.parametrize("spread", [0.3, 3.0])
@given(
    st.floats(0.2, 2.0),
    st.sampled_from([0, 1, 5, 40, 10_000]),
    st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    st.sampled_from([0.0, 0.02, 0.3]),
    st.sampled_from([1.0, 1.3]),
    st.integers(0, 2**20),
)
@settings(max_examples=60, deadline=None)
def test_the_distribution_is_that_of_transformers(
    vocab_size, spread, temperature, top_k, top_p, min_p, repetition_penalty, seed
):
    logits = torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(seed)) * spread
    prompt = [1, 2, 3, 7]
    sampler = row(
        vocab_size,
        prompt,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        distribution = ours(logits, sampler, monkeypatch)
    expected = theirs(logits, sampler.params, prompt)
    # Mass on the edge of top_p may fall on either side of a rounding error of the cumulative sum.
    assert (distribution - expected).abs().sum() < 2e-3


def test_draws_have_the_frequencies_of_the_distribution():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    for params in ({"temperature": 1.0}, {"temperature": 1.0, "top_k": 4}):
        sampler = row(4, seed=1, **params)
        counts = torch.zeros(4)
        for _ in range(4000):
            counts[sample(logits, [sampler])[0]] += 1
        assert (counts / 4000 - logits.softmax(-1)[0]).abs().max() < 0.03


def test_a_seed_draws_the_same_alone_and_among_others():
    generator = torch.Generator().manual_seed(0)
    steps = [torch.randn(6, 500, generator=generator) for _ in range(30)]
    params = {"temperature": 1.0, "top_p": 0.9, "seed": 11}
    alone = row(500, **params)
    expected = [sample(step[2:3], [alone])[0] for step in steps]
    together = [
        row(500, temperature=0.7, seed=1),
        row(500),
        row(500, **params),
        row(500, temperature=1.0, top_k=3, seed=5),
        row(500, repetition_penalty=1.2),
        row(500, temperature=2.0, top_p=0.99, seed=2),
    ]
    assert [sample(step, together)[2] for step in steps] == expected


def test_greedy_takes_the_largest_whatever_the_filters_say():
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    assert sample(logits, [row(3, top_k=1, top_p=0.1)]) == [1]


def test_few_candidates_give_what_a_full_sort_gives(monkeypatch):
    logits = torch.randn(4, 2000, generator=torch.Generator().manual_seed(3)) * 0.1
    many = [
        row(2000, temperature=1.0, seed=i, **p)
        for i, p in enumerate([{"top_p": 0.9}, {"top_k": 30}, {"top_k": 1500}, {"top_p": 0.01}])
    ]
    few = [
        row(2000, temperature=1.0, seed=i, **p)
        for i, p in enumerate([{"top_p": 0.9}, {"top_k": 30}, {"top_k": 1500}, {"top_p": 0.01}])
    ]
    expected = [sample(logits, many) for _ in range(20)]
    monkeypatch.setattr(sampling, "NUM_CANDIDATES", math.inf)
    assert [sample(logits, few) for _ in range(20)] == expected
