"""Chooses the next token of every row from its logits. Inference thread only.

Rows are independent: the random numbers of a row come from its own seed, so that what else is in
the batch changes nothing.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from app.core.work.job_events import TokenLogprob
from app.core.work.sampling_params import SamplingParams
from app.engine.sampling.filters import column, filter_ordered, filter_unordered, needs_order
from app.engine.sampling.grammar_masks import forbid
from app.engine.sampling.row_logits import RowLogits

Way = Literal["likeliest", "drawn", "drawn_in_order"]
# In the place of a token, where the row's logits hold NaN or +infinity.
UNSOUND = -1


class RowSampler:
    """Sampling state of one sequence: its parameters, its random numbers, what changes its logits."""

    def __init__(self, params: SamplingParams, logits: RowLogits):
        self.params = params
        self.logits = logits
        self.way = way_of(params)
        self._random = random.Random(params.seed)

    def uniform(self) -> float:
        """The next random number in [0, 1) of this sequence."""
        return self._random.random()

    def accept(self, token: int) -> None:
        """``token`` now belongs to the sequence."""
        if not self.logits.is_idle:
            self.logits.accept(token)


def way_of(params: SamplingParams) -> Way:
    """How a row with these parameters finds its token."""
    if params.temperature == 0.0:
        return "likeliest"
    return "drawn_in_order" if needs_order(params) else "drawn"


def choose(logits: torch.Tensor, rows: list[RowSampler]) -> list[tuple[int, TokenLogprob | None]]:
    """The next token of each row, and its log-probability where that was asked for; see ``sample``.

    A row without a token (``UNSOUND``) has no meaningful log-probability either.
    """
    tokens = sample(logits, rows)
    asked = {i: num for i, row in enumerate(rows) if (num := row.params.num_logprobs) is not None}
    if not asked:
        return [(token, None) for token in tokens]
    scored = logprobs(logits[list(asked)], [max(tokens[i], 0) for i in asked], max(asked.values()))
    entries = {i: replace(entry, top=entry.top[:num]) for (i, num), entry in zip(asked.items(), scored, strict=True)}
    return [(token, entries.get(i)) for i, token in enumerate(tokens)]


def sample(logits: torch.Tensor, rows: list[RowSampler]) -> list[int]:
    """Next token per row from ``logits`` ``(num_rows, vocab)``, any float dtype; one transfer to the host.

    ``UNSOUND`` for a row that holds NaN or +infinity: the largest entry tells, which is read anyway.
    """
    logits = _changed(logits, rows)
    ways = {row.way for row in rows}
    if len(ways) == 1:
        tokens = _found(logits, rows, ways.pop())
    else:
        tokens = torch.empty(len(rows), dtype=torch.long, device=logits.device)
        for way in ways:
            chosen = [i for i, row in enumerate(rows) if row.way == way]
            tokens[chosen] = _found(logits[chosen], [rows[i] for i in chosen], way)
    found: list[int] = tokens.tolist()
    return found


def _changed(logits: torch.Tensor, rows: list[RowSampler]) -> torch.Tensor:
    """The logits with the rows' penalties, biases and bans, in float32; as they are where there are none."""
    changing = [i for i, row in enumerate(rows) if not row.logits.is_idle]
    if not changing:
        return logits
    matchers = {i: matcher for i in changing if (matcher := rows[i].logits.matcher) is not None}
    own = [i for i in changing if rows[i].logits.has_changes]
    # Where rows follow grammars and there is nothing else, masking makes the copy.
    logits = logits.to(torch.float32, copy=bool(own))
    for i in own:
        rows[i].logits.apply(logits[i])
    logits = forbid(logits, matchers)
    for i in own:
        rows[i].logits.force(logits[i])
    return logits


def _found(logits: torch.Tensor, rows: list[RowSampler], way: Way) -> torch.Tensor:
    """Next token of each row ``(num_rows,)``, all found in the same way, on the device of ``logits``."""
    if way == "likeliest":
        return likeliest(logits)
    is_unsound = ~(logits.amax(dim=-1) < math.inf)
    # On a GPU asking whether there are any would wait for the device.
    if logits.device.type != "cpu" or bool(is_unsound.any()):
        logits = logits.masked_fill(is_unsound[:, None], 0.0)
    return _drawn(logits.float(), rows, way).masked_fill_(is_unsound, UNSOUND)


def _drawn(logits: torch.Tensor, rows: list[RowSampler], way: Way) -> torch.Tensor:
    params, uniforms = [row.params for row in rows], [row.uniform() for row in rows]
    if way == "drawn":
        return draw(filter_unordered(logits, params), uniforms)
    kept, ids = filter_ordered(logits, params)
    return ids.gather(1, draw(kept, uniforms)[:, None])[:, 0]


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row ``(num_rows,)``, the first of equal ones; ``UNSOUND`` where that is no number.

    NaN counts as the largest entry, in numpy and in torch. On a CPU by numpy: ``argmax`` of torch 2.13 takes 185 us
    for ``(16, 8192)`` float32 there, numpy's 8.
    """
    if logits.device.type != "cpu":
        largest, tokens = logits.max(dim=-1)
        return tokens.masked_fill_(~(largest < math.inf), UNSOUND)
    values = logits.float().numpy()
    found = values.argmax(axis=-1)
    found[~(values[np.arange(len(found)), found] < math.inf)] = UNSOUND
    return torch.from_numpy(found)


def logprobs(logits: torch.Tensor, tokens: list[int], num_top: int) -> list[TokenLogprob]:
    """Log-probability of ``tokens`` under ``logits`` ``(len(tokens), vocab)``, with the ``num_top`` best.

    One transfer to the host: float64 holds every float32 and every id exactly.
    """
    scores = logits.float().log_softmax(dim=-1)
    chosen = scores.gather(1, torch.tensor(tokens, device=scores.device)[:, None])
    best, ids = scores.topk(min(num_top, scores.shape[-1]), dim=-1)
    entries = []
    for token, row in zip(tokens, torch.cat([chosen.double(), best.double(), ids.double()], 1).tolist(), strict=True):
        values, top_ids = row[1 : best.shape[1] + 1], map(int, row[best.shape[1] + 1 :])
        entries.append(TokenLogprob(token, row[0], tuple(zip(top_ids, values, strict=True))))
    return entries


def draw(logits: torch.Tensor, uniforms: list[float]) -> torch.Tensor:
    """One index per row, by inverting the cumulative distribution at ``uniforms``; ``(num_rows,)``.

    The sum is of float64: in float32 the many unlikely tokens of a large vocabulary would be lost in it.
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    target = column(uniforms, cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
