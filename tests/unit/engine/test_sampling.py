"""Filters agree with transformers' warpers; draws follow the distribution and the row's own seed."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import _disable_current_modes
from transformers import (
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
    TypicalLogitsWarper,
)

from app.core.work.sampling_params import SamplingParams
from app.engine.runners.graphs.op_recorder import Noting
from app.engine.sampling import filters, row_wishes
from app.engine.sampling import sampler as sampler_module
from app.engine.sampling.pending_tokens import UNSOUND
from app.engine.sampling.row_logits import RowLogits
from app.engine.sampling.row_sampler import RowSampler
from app.engine.sampling.row_wishes import RowWishes
from app.engine.sampling.sampler import choose, draw_next, likeliest
from app.engine.sampling.token_scores import logprobs
from app.models.checkpoint.transfer import sent

CPU = torch.device("cpu")
END = frozenset({2})


def row(vocab_size: int, prompt: list[int] | None = None, **params: object) -> RowSampler:
    sampling_params = SamplingParams(8, **params)
    return RowSampler(sampling_params, RowLogits(sampling_params, prompt or [0], vocab_size, CPU, END, None))


def sample(logits: torch.Tensor, rows: list[RowSampler]) -> list[int]:
    return [token for token, _ in choose(logits, rows)]


def ours(logits: torch.Tensor, sampler: RowSampler) -> torch.Tensor:
    """The distribution that a token is drawn from, ``(vocab,)``."""
    logits = logits.clone()
    sampler.logits.apply(logits[0])
    wishes = RowWishes([sampler.params], [0.0], logits.shape[-1], CPU)
    if sampler.way == "drawn":
        return filters.filter_unordered(logits, wishes).softmax(-1)[0]
    kept, ids = filters.filter_ordered(logits, wishes)
    return torch.zeros(logits.shape[-1]).scatter(0, ids[0], kept.softmax(-1)[0])


def theirs(logits: torch.Tensor, params: SamplingParams, prompt: list[int]) -> torch.Tensor:
    processors = LogitsProcessorList()
    if params.logit_bias:
        processors.append(SequenceBiasLogitsProcessor([[[token], bias] for token, bias in params.logit_bias]))
    if params.repetition_penalty != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.bad_words:
        processors.append(NoBadWordsLogitsProcessor([list(word) for word in params.bad_words]))
    if params.min_new_tokens:
        processors.append(MinNewTokensLengthLogitsProcessor(len(prompt), params.min_new_tokens, 2))
    processors.append(TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    if params.typical_p < 1:
        processors.append(TypicalLogitsWarper(params.typical_p))
    return processors(torch.tensor([prompt]), logits.clone()).softmax(-1)[0]


BANS = {
    "logit_bias": ((5, 2.0), (9, -3.0)),
    "bad_words": ((11,), (3, 7, 12), (4, 13)),
    "min_new_tokens": 3,
}
CHOICES = {
    "temperature": st.floats(0.2, 2.0),
    "top_k": st.sampled_from([0, 1, 5, 40, 10_000]),
    "top_p": st.sampled_from([1.0, 0.95, 0.5, 0.05]),
    "min_p": st.sampled_from([0.0, 0.02, 0.3]),
    "typical_p": st.sampled_from([1.0, 0.9, 0.3]),
    "repetition_penalty": st.sampled_from([1.0, 1.3]),
}


def is_equal_but_for_one_token(a: torch.Tensor, b: torch.Tensor) -> bool:
    if (a - b).abs().max() < 1e-4:
        return True
    differs = (a > 0) != (b > 0)
    both = (a > 0) & (b > 0)
    return int(differs.sum()) == 1 and bool(((a / a[both].sum())[both] - (b / b[both].sum())[both]).abs().max() < 1e-4)


@pytest.mark.parametrize("vocab_size", [50, 3000])
@pytest.mark.parametrize("spread", [0.3, 3.0])
@given(st.fixed_dictionaries(CHOICES), st.booleans(), st.integers(0, 2**20))
@settings(max_examples=80)
def test_the_distribution_is_that_of_transformers(vocab_size, spread, params, has_bans, seed):
    logits = torch.randn(1, vocab_size, generator=torch.Generator().manual_seed(seed)) * spread
    prompt = [1, 2, 3, 7]
    sampler = row(vocab_size, prompt, **params, **(BANS if has_bans else {}))
    distribution = ours(logits, sampler)
    expected = theirs(logits, sampler.params, prompt)
    # A token on the edge of top_p or typical_p may fall on either side of a rounding error of the cumulative sum.
    assert is_equal_but_for_one_token(distribution, expected)


@pytest.mark.slow
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
    steps = [torch.randn(7, 500, generator=generator) for _ in range(30)]
    params = {"temperature": 1.0, "top_p": 0.9, "seed": 11}
    alone = row(500, **params)
    expected = [sample(step[2:3], [alone])[0] for step in steps]
    together = [
        row(500, temperature=0.7, seed=1),
        row(500),
        row(500, **params),
        row(500, temperature=1.0, top_k=3, seed=5),
        row(500, repetition_penalty=1.2),
        row(500, temperature=1.0, typical_p=0.5, seed=9),
        row(500, temperature=2.0, top_p=0.99, seed=2),
    ]
    assert [sample(step, together)[2] for step in steps] == expected


def test_greedy_takes_the_largest_whatever_the_filters_say():
    logits = torch.tensor([[0.0, 5.0, 1.0]])
    assert sample(logits, [row(3, top_k=1, top_p=0.1)]) == [1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_likeliest_token_is_the_one_that_argmax_finds(dtype):
    logits = torch.randn(6, 700, generator=torch.Generator().manual_seed(2)).to(dtype)
    logits[1, 30:40] = 99.0  # equal ones: the first
    logits[2, 5:] = -math.inf
    logits[3] = -math.inf
    assert likeliest(logits).tolist() == logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(
    "params", [{}, {"temperature": 0.7}, {"temperature": 1.0, "top_k": 5}, {"temperature": 1.0, "top_p": 0.5}]
)
def test_a_row_without_numbers_gets_no_token_and_leaves_the_others_theirs(value, params):
    logits = torch.randn(3, 700, generator=torch.Generator().manual_seed(2))
    expected = sample(logits, [row(700, seed=i, **params) for i in range(3)])
    logits[1, 17] = value
    found = sample(logits, [row(700, seed=i, **params) for i in range(3)])
    assert found == [expected[0], UNSOUND, expected[2]]
    assert [
        token for token, _ in choose(logits, [row(700, seed=i, num_logprobs=1, **params) for i in range(3)])
    ] == found


@pytest.mark.parametrize("num", [1, 30, 700])
def test_the_largest_entries_are_those_that_topk_finds(num):
    logits = torch.randn(5, 700, generator=torch.Generator().manual_seed(6))
    logits[1, ::2] = -math.inf
    best, ids = filters.largest(logits, num)
    assert torch.equal(best, logits.topk(num, dim=-1).values)
    assert torch.equal(best, logits.gather(1, ids))
    assert all(len(set(row)) == num for row in ids.tolist())


@pytest.mark.parametrize("num", [1, 30, 200])
def test_equal_entries_go_by_id_however_many_are_sorted(num):
    logits = torch.randn(4, 700, generator=torch.Generator().manual_seed(7)).mul(4).round().div(4)
    logits[1, ::2] = -math.inf
    _, expected = logits.sort(dim=-1, descending=True, stable=True)
    assert torch.equal(filters.largest(logits, 700)[1], expected)
    assert torch.equal(filters.largest(logits, num)[1], expected[:, :num])


def test_a_seed_gives_the_same_token_where_another_row_forces_a_full_sort_of_equal_logits():
    logits = torch.randn(2, 3000, generator=torch.Generator().manual_seed(8)).bfloat16()
    logits[1] *= 0.01
    alone, together = (row(3000, temperature=1.0, top_p=0.9, seed=3) for _ in range(2))
    flat = row(3000, temperature=5.0, top_p=0.99, seed=4)
    for _ in range(50):
        assert sample(logits, [together, flat])[0] == sample(logits[:1], [alone])[0]


def test_sampling_leaves_the_logits_as_they_are():
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(4))
    before = logits.clone()
    sample(logits, [row(50, logit_bias=((3, 50.0),)), row(50, temperature=1.0), row(50, temperature=1.0, top_k=3)])
    assert torch.equal(logits, before)


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
    monkeypatch.setattr(filters, "NUM_CANDIDATES", math.inf)
    assert [sample(logits, few) for _ in range(20)] == expected


def test_frequency_and_presence_count_generated_tokens_only():
    sampler = row(6, [1, 1, 1], temperature=1.0, frequency_penalty=0.5, presence_penalty=0.25)
    for token in (3, 3, 4):
        sampler.accept(token)
    logits = torch.zeros(6)
    sampler.logits.apply(logits)
    assert logits.tolist() == [0, 0, 0, -1.25, -0.75, 0]


def test_a_bad_word_of_several_tokens_is_banned_where_it_would_end():
    sampler = row(20, [1], bad_words=((7, 8),))
    free, banned = torch.zeros(20), torch.zeros(20)
    sampler.logits.apply(free)
    sampler.accept(7)
    sampler.logits.apply(banned)
    assert free[8] == 0
    assert banned[8] == -math.inf


def test_log_probabilities_are_those_of_the_raw_logits():
    logits = torch.randn(3, 40, generator=torch.Generator().manual_seed(0))
    expected = logits.log_softmax(-1)
    for i, entry in enumerate(logprobs(logits, [4, 5, 6], 3)):
        assert entry.token == 4 + i
        assert math.isclose(entry.logprob, expected[i, 4 + i].item(), abs_tol=1e-6)
        assert [token for token, _ in entry.top] == expected[i].topk(3).indices.tolist()


def test_a_step_of_many_different_rows_is_one_transfer_to_the_host(monkeypatch):
    logits = torch.randn(8, 50, generator=torch.Generator().manual_seed(1))
    kinds = [{}, {"temperature": 0.7, "seed": 1}, {"temperature": 1.0, "top_k": 5, "seed": 2}]
    kinds += [{"repetition_penalty": 1.2}, {"temperature": 0.5, "frequency_penalty": 0.3, "seed": 3}]
    alone = [sample(logits[i : i + 1], [row(50, **kinds[i % 5])])[0] for i in range(8)]
    transfers = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: transfers.append(1) or tolist(tensor))
    tokens = sample(logits, [row(50, **kinds[i % 5]) for i in range(8)])
    assert tokens == alone
    assert len(transfers) == 1
    logprobs(logits, tokens, 4)
    assert len(transfers) == 2


KINDS: list[dict[str, object]] = [
    {},
    {"temperature": 0.7},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.3, "top_p": 0.8},
    {"temperature": 1.0, "top_k": 40, "typical_p": 0.7},
    {"temperature": 0.9, "min_p": 0.1, "num_logprobs": 3},
    {"temperature": 1.0, "top_k": 1500, "top_p": 0.9},
    {"num_logprobs": 0},
]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Ways are chosen as where to read a number waits for a device."""
    for module in (filters, sampler_module):
        monkeypatch.setattr(module, "reads_wait", lambda _logits: True)


@pytest.mark.parametrize("kinds", [KINDS, KINDS[:1], KINDS[1:2], KINDS[2:3], KINDS[3:6]], ids=str)
def test_nothing_is_read_from_the_device_until_the_tokens_are_and_then_once(as_on_a_gpu, monkeypatch, kinds):
    """Numbers of the host come in one transfer, which nobody waits for (``sent``)."""
    logits = torch.randn(16, 3000, generator=torch.Generator().manual_seed(1))
    logits[3, 7] = math.nan
    rows = [row(3000, seed=i, **kinds[i % len(kinds)]) for i in range(16)]
    brought = []

    def unseen(numbers, device):
        brought.append(numbers)
        with _disable_current_modes():
            return sent(numbers, device)

    monkeypatch.setattr(row_wishes, "sent", unseen)
    with Noting():
        drawn = draw_next(logits, rows)
    assert len(brought) <= 1
    transfers = []
    tolist = torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: transfers.append(1) or tolist(tensor))
    found = drawn.read()
    assert len(transfers) == 1
    assert found[3][0] == UNSOUND


def test_rows_draw_the_same_as_on_the_host_whoever_is_beside_them(as_on_a_gpu, monkeypatch):
    logits = torch.randn(16, 3000, generator=torch.Generator().manual_seed(2)) * 3
    for _ in range(3):
        together = choose(logits, [row(3000, seed=i, **KINDS[i % 8]) for i in range(16)])
        alone = [choose(logits[i : i + 1], [row(3000, seed=i, **KINDS[i % 8])])[0] for i in range(16)]
        assert [token for token, _ in together] == [token for token, _ in alone]
        with monkeypatch.context() as host:
            for module in (filters, sampler_module):
                host.setattr(module, "reads_wait", lambda _logits: False)
            there = choose(logits, [row(3000, seed=i, **KINDS[i % 8]) for i in range(16)])
        assert [token for token, _ in there] == [token for token, _ in together]
        for (_, ours), (_, theirs) in zip(together, there, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None and theirs is not None:
                assert ours.logprob == pytest.approx(theirs.logprob)
                assert [token for token, _ in ours.top] == [token for token, _ in theirs.top]
        logits = logits.roll(1, 0)
