"""Chooses the next token of every row from its logits. Inference thread only.

Rows are independent: the random numbers of a row come from its own seed, so that what else is in
the batch changes nothing.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from app.core.work.job_events import TokenLogprob
from app.engine.sampling.filters import filter_ordered, filter_unordered, reads_wait
from app.engine.sampling.grammar_masks import forbid
from app.engine.sampling.pending_tokens import UNSOUND, Drawn
from app.engine.sampling.row_sampler import RowSampler
from app.engine.sampling.row_wishes import RowWishes, Way
from app.engine.sampling.token_scores import scores_of


def choose(logits: torch.Tensor, rows: list[RowSampler]) -> list[tuple[int, TokenLogprob | None]]:
    """The next token of each row, and its log-probability where that was asked for; see ``draw_next``."""
    return draw_next(logits, rows).read()


def draw_next(logits: torch.Tensor, rows: list[RowSampler]) -> Drawn:
    """Next token per row from ``logits`` ``(num_rows, vocab)``, any float dtype; waits for no GPU."""
    tokens = _tokens(_changed(logits, rows), rows)
    wanted = [row.params.num_logprobs for row in rows]
    asked = [i for i, num in enumerate(wanted) if num is not None]
    if not asked:
        return Drawn(tokens, None, wanted)
    most, targets = max(num for num in wanted if num is not None), tokens.clamp(min=0)
    if len(asked) == len(rows) or reads_wait(logits):
        scores = scores_of(logits, targets, most)
    else:
        some = scores_of(logits[asked], targets[asked], most)
        scores = some.new_zeros((len(rows), some.shape[1]))
        scores[asked] = some
    return Drawn(tokens, torch.cat((tokens[:, None].double(), scores), 1), wanted)


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


def _tokens(logits: torch.Tensor, rows: list[RowSampler]) -> torch.Tensor:
    """Next token of each row ``(num_rows,)``, on the device of ``logits``; ``UNSOUND`` where those are no numbers."""
    ways = sorted({row.way for row in rows})
    if len(ways) == 1:
        return _found(logits, rows, ways[0])
    if reads_wait(logits):
        return _found_each_way(logits, rows, ways)
    tokens = torch.empty(len(rows), dtype=torch.long)
    for way in ways:
        chosen = [i for i, row in enumerate(rows) if row.way == way]
        tokens[chosen] = _found(logits[chosen], [rows[i] for i in chosen], way)
    return tokens


def _found(logits: torch.Tensor, rows: list[RowSampler], way: Way) -> torch.Tensor:
    """The same where all rows find theirs in one way."""
    if way == "likeliest":
        return likeliest(logits)
    return _drawn_soundly(logits, wishes_of(rows, logits), way)


def _found_each_way(logits: torch.Tensor, rows: list[RowSampler], ways: list[Way]) -> torch.Tensor:
    """The same on a GPU: which row goes which way is a number there, too, so all go each way and keep their own."""
    wishes = wishes_of(rows, logits)
    tokens = torch.full((len(rows),), UNSOUND, device=logits.device)
    for way in ways:
        found = likeliest(logits) if way == "likeliest" else _drawn_soundly(logits, wishes, way)
        tokens = torch.where(wishes.is_found(way), found, tokens)
    return tokens


def wishes_of(rows: list[RowSampler], logits: torch.Tensor) -> RowWishes:
    """What the rows want, with the next random number of each that draws."""
    uniforms = [0.0 if row.way == "likeliest" else row.uniform() for row in rows]
    return RowWishes([row.params for row in rows], uniforms, logits.shape[-1], logits.device)


def _drawn_soundly(logits: torch.Tensor, wishes: RowWishes, way: Way) -> torch.Tensor:
    is_unsound = ~(logits.amax(dim=-1) < math.inf)
    if reads_wait(logits) or bool(is_unsound.any()):
        logits = logits.masked_fill(is_unsound[:, None], 0.0)
    return _drawn(logits.float(), wishes, way).masked_fill_(is_unsound, UNSOUND)


def _drawn(logits: torch.Tensor, wishes: RowWishes, way: Way) -> torch.Tensor:
    if way == "drawn":
        return draw(filter_unordered(logits, wishes), wishes)
    kept, ids = filter_ordered(logits, wishes)
    return ids.gather(1, draw(kept, wishes)[:, None])[:, 0]


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """The likeliest token of each row ``(num_rows,)``, the first of equal ones; ``UNSOUND`` where that is no number.

    NaN counts as the largest entry, in numpy and in torch. On a CPU by numpy: ``argmax`` of torch 2.13 takes 185 us
    for ``(16, 8192)`` float32 there, numpy's 8.
    """
    if reads_wait(logits):
        largest, tokens = logits.max(dim=-1)
        return tokens.masked_fill_(~(largest < math.inf), UNSOUND)
    values = logits.float().numpy()
    found = values.argmax(axis=-1)
    found[~(values[np.arange(len(found)), found] < math.inf)] = UNSOUND
    return torch.from_numpy(found)


def draw(logits: torch.Tensor, wishes: RowWishes) -> torch.Tensor:
    """One index per row, by inverting the cumulative distribution at its random number; ``(num_rows,)``.

    The sum is of float64: in float32 the many unlikely tokens of a large vocabulary would be lost in it.
    """
    cumulative = logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
    target = wishes.column("uniform", cumulative) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=logits.shape[-1] - 1)[:, 0]
