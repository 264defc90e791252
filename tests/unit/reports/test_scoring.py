"""Perplexity and divergence are what an independent computation and the model's own loss say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from app.reports.precision import first_difference
from app.reports.scoring import Tally, num_positions, windows

IDS = [(i * 37 + i * i) % 380 for i in range(100)]


def logits_of(folder, dtype: torch.dtype) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    with torch.inference_mode():
        return model(torch.tensor([IDS])).logits[0, :-1].float()


def tally_of(logits: torch.Tensor, baseline: torch.Tensor | None = None, ids: list[int] = IDS) -> Tally:
    tally = Tally()
    tally.add(logits, torch.tensor(ids[1:]), baseline)
    return tally


@pytest.fixture(scope="module")
def both(model_folder):
    """Logits of one tiny model in float32 and in bfloat16."""
    folder = model_folder("qwen2")
    return logits_of(folder, torch.float32), logits_of(folder, torch.bfloat16)


def probabilities(logits: torch.Tensor) -> np.ndarray:
    values = np.exp(logits.numpy().astype(np.float64))
    return values / values.sum(axis=1, keepdims=True)


def test_divergence_is_the_textbook_sum_over_the_whole_vocabulary(both):
    exact, rounded = both
    p, q = probabilities(exact), probabilities(rounded)
    expected = [sum(a * math.log(a / b) for a, b in zip(*rows, strict=True)) for rows in zip(p, q, strict=True)]
    tally = tally_of(rounded, exact)
    assert tally.mean_kl == pytest.approx(sum(expected) / len(expected), rel=1e-9)
    assert tally.max_kl == pytest.approx(max(expected), rel=1e-9)
    assert tally.mean_kl > 0
    agreeing = [a.argmax() == b.argmax() for a, b in zip(p, q, strict=True)]
    assert tally.top1_agreement == pytest.approx(np.mean(agreeing))


def test_divergence_is_from_the_baseline_and_not_to_it():
    baseline, other = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, math.log(3)]])
    tally = tally_of(other, baseline, [0, 1])
    assert tally.mean_kl == pytest.approx(0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75))


def test_perplexity_is_the_exponential_of_the_models_own_loss(model_folder):
    model = AutoModelForCausalLM.from_pretrained(model_folder("qwen2")).eval()
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        output = model(ids, labels=ids)
    assert tally_of(output.logits[0, :-1]).perplexity == pytest.approx(math.exp(float(output.loss)), rel=1e-5)


def test_windows_add_up_to_the_figures_of_the_whole(both):
    exact, rounded = both
    whole, parts = tally_of(rounded, exact), Tally()
    targets = torch.tensor(IDS[1:])
    for part in (slice(0, 40), slice(40, 41), slice(41, None)):
        parts.add(rounded[part], targets[part], exact[part])
    assert (parts.perplexity, parts.mean_kl) == (pytest.approx(whole.perplexity), pytest.approx(whole.mean_kl))
    assert (parts.max_kl, parts.top1_agreement) == (pytest.approx(whole.max_kl), whole.top1_agreement)


def test_equal_logits_do_not_diverge(both):
    tally = tally_of(both[0], both[0])
    assert (tally.mean_kl, tally.max_kl, tally.top1_agreement) == (0, 0, 1)


def test_impossible_tokens_add_nothing():
    logits = torch.tensor([[0.0, -math.inf, 1.0]])
    assert tally_of(logits, logits, [0, 2]).mean_kl == 0


def test_a_hopeless_model_has_infinite_perplexity():
    assert tally_of(torch.tensor([[0.0, 5000.0]]), None, [0, 0]).perplexity == math.inf


def test_windows_cover_the_text_without_overlap():
    assert windows(range(10), 4, 10) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert windows(range(10), 4, 9) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert windows([5], 4, 9) == []
    assert num_positions(windows(range(10), 4, 10)) == 3 + 3 + 1


@pytest.mark.parametrize(("found", "at"), [([1, 2, 3], None), ([9, 2, 3], 0), ([1, 2, 9], 2), ([1, 9, 9], 1)], ids=str)
def test_the_first_token_that_differs_is_found(found, at):
    assert first_difference([1, 2, 3], found) == at
