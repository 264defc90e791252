"""The gated delta rule, by which layers like Qwen3-Next's write what they read into a matrix for each head.

Behind a token with key k, value v, decay g and strength b, a head's state S is exp(g) S + k d, where d is b times what
v differs from what exp(g) S holds under k; its query q reads q S. Tokens that decode are one step of all rows at once.
Those of a prompt are taken in blocks, within which what all tokens write is solved for at once, as in "Parallelizing
Linear Transformers with the Delta Rule over Sequence Length" (Yang et al. 2024). Inference thread only; knows no cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

# The longest block: work within blocks grows with their length, and the number of operations with that of blocks.
BLOCK_TOKENS = 64
# What has decayed further is as good as gone. Smaller numbers, and infinite ones, take the processor several times as
# long, and so does their exponential.
LEAST_LOG_DECAY = -80.0
# Prompts are padded to one length where that makes them at most so many times as long together.
MOST_PADDED = 1.5


@dataclass(frozen=True)
class Heads:
    """What a layer's heads get for tokens, in float32: ``queries`` and ``keys`` ``(tokens, heads, key_dim)``, whose
    lengths are those that the rule takes, ``values`` ``(tokens, heads, value_dim)``, ``log_decays`` and ``strengths``
    ``(tokens, heads)``.
    """

    queries: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    log_decays: torch.Tensor
    strengths: torch.Tensor

    def part(self, begin: int, end: int) -> Heads:
        """Those of tokens ``begin .. end``."""
        found = (self.queries, self.keys, self.values, self.log_decays, self.strengths)
        return Heads(*(one[begin:end] for one in found))


def step(heads: Heads, states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One token behind each of ``states`` ``(rows, heads, key_dim, value_dim)``, which stay as they are.

    What the tokens read ``(rows, heads, value_dim)``, and the states behind them.
    """
    decayed = states * heads.log_decays.exp()[..., None, None]
    found = torch.stack((heads.keys, heads.queries), dim=2) @ decayed
    written = (heads.values - found[:, :, 0]) * heads.strengths[..., None]
    read = torch.addcmul(found[:, :, 1], (heads.queries * heads.keys).sum(-1, keepdim=True), written)
    return read, decayed.addcmul_(heads.keys[..., None], written[:, :, None])


class Blocks:
    """Stretches of tokens, one for each of several sequences, cut in as many blocks of one length and padded to it.

    ``keeps``: of each sequence, behind how many of its tokens the states are wanted; its end among them.
    """

    def __init__(self, lengths: Sequence[int], keeps: Sequence[Sequence[int]], device: torch.device):
        self.num = -(-max(lengths) // BLOCK_TOKENS)
        self.length = -(-max(lengths) // self.num)
        self._keeps, self._num_sequences = keeps, len(lengths)
        self._total, self._places = sum(lengths), None
        if len(lengths) > 1 or self.num * self.length > lengths[0]:
            self._places = self._placed(lengths, device)

    def _placed(self, lengths: Sequence[int], device: torch.device) -> tuple[torch.Tensor, ...]:
        """Which token is read at each place, whether it is more than padding, and at which place each token is."""
        padded = self.num * self.length
        ends = torch.tensor(lengths, device=device).cumsum(0)[:, None]
        counts = torch.tensor(lengths, device=device)[:, None]
        within = torch.arange(padded, device=device)
        tokens = ends - counts + within.minimum(counts - 1)
        is_real = (within < counts).float()
        return tokens.flatten(), is_real.flatten()[:, None], is_real.flatten().nonzero()[:, 0]

    def run(self, heads: Heads, states: torch.Tensor | None) -> tuple[torch.Tensor, list[list[torch.Tensor]]]:
        """All tokens, laid end to end, behind ``states`` ``(sequences, heads, key_dim, value_dim)``, None: of zeros.

        What the tokens read ``(tokens, heads, value_dim)``, and of each sequence the wanted states, each ``(1, heads,
        key_dim, value_dim)``. Padding has no strength and decays nothing, so it leaves states as they are.
        """
        asked = self._cut(torch.stack((heads.queries, heads.keys), dim=2))
        values, strengths = self._cut(heads.values), self._cut(heads.strengths[..., None], is_zero=True)
        decays = self._cut(heads.log_decays[..., None], is_zero=True)[..., 0].cumsum(-1)
        between = (decays[..., :, None] - decays[..., None, :]).clamp_(LEAST_LOG_DECAY, 0.0).exp_().tril_()
        since = decays.clamp(min=LEAST_LOG_DECAY).exp_()[..., None]
        keys = asked[..., 1, :, :]
        attended, written = both(asked, keys.mT, between)
        written = written * strengths
        kept: list[list[torch.Tensor]] = [[] for _ in self._keeps]
        read = []
        for i in range(self.num):
            new, found = values[:, :, i], None
            if states is not None:
                found, known = both(asked[:, :, i], states, since[:, :, i])
                new = new - known
            # What a token writes depends on what those before it in the block have written.
            new = new * strengths[:, :, i]
            new = torch.linalg.solve_triangular(written[:, :, i], new, upper=False, unitriangular=True)
            within = attended[:, :, i] @ new
            read.append(within if found is None else within.add_(found))
            self._keep(kept, i, (states, new, keys[:, :, i], between[:, :, i], since[:, :, i]))
            if i < self.num - 1:
                states = behind(states, new, keys[:, :, i], between[:, :, i, -1], since[:, :, i, -1])
        return self._joined(read), kept

    def _keep(self, kept: list[list[torch.Tensor]], i: int, block: tuple[torch.Tensor | None, ...]) -> None:
        """Add the states that are wanted of block ``i``."""
        states, *found = block
        for at, keeps in enumerate(self._keeps):
            one = slice(at, at + 1)
            for num_tokens in keeps:
                last = num_tokens - 1 - i * self.length
                if 0 <= last < self.length:
                    new, keys, between, since = (some[one] for some in found if some is not None)
                    before = None if states is None else states[one]
                    kept[at].append(behind(before, new, keys, between[:, :, last], since[:, :, last]))

    def _cut(self, values: torch.Tensor, *, is_zero: bool = False) -> torch.Tensor:
        """``(tokens, heads, .., size)`` as ``(sequences, heads, blocks, .., length, size)``; padding may be zero."""
        if self._places is not None:
            tokens, is_real, _ = self._places
            values = values[tokens]
            if is_zero:
                values = values * is_real[..., None]
        cut = values.view(self._num_sequences, self.num, self.length, *values.shape[1:])
        return cut.permute(0, 3, 1, *range(4, cut.dim() - 1), 2, cut.dim() - 1).contiguous()

    def _joined(self, read: list[torch.Tensor]) -> torch.Tensor:
        """What blocks ``(sequences, heads, length, size)`` have read, as ``(tokens, heads, size)``."""
        whole = read[0] if len(read) == 1 else torch.cat(read, dim=2)
        laid = whole.transpose(1, 2).flatten(0, 1)
        return laid if self._places is None else laid[self._places[2]]


def both(asked: torch.Tensor, others: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """What queries and keys, ``asked`` ``(.., 2, length, size)``, find in ``others`` ``(.., size, found)``, each times
    its one of ``weights`` ``(.., length, found)``.
    """
    found = asked.flatten(-3, -2) @ others
    apart = found.view(*asked.shape[:-1], found.shape[-1]).mul_(weights[..., None, :, :])
    return apart[..., 0, :, :], apart[..., 1, :, :]


def behind(
    states: torch.Tensor | None, written: torch.Tensor, keys: torch.Tensor, between: torch.Tensor, since: torch.Tensor
) -> torch.Tensor:
    """States behind a token of a block: ``between`` ``(.., length)`` is what is left there of each token's writing, and
    ``since`` ``(.., 1)`` of the states before.
    """
    added = (keys * between[..., None]).mT @ written
    return added if states is None else added.addcmul_(states, since[..., None])


def batches(lengths: Sequence[int]) -> list[range]:
    """Which sequences are taken together: all of them where that pads little, else each by itself."""
    if len(lengths) * max(lengths) <= MOST_PADDED * sum(lengths):
        return [range(len(lengths))]
    return [range(at, at + 1) for at in range(len(lengths))]
