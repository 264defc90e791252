"""Layers of Qwen3-Next's kind, gated delta nets, take a whole pass at once: rows that decode and chunks of prompts.

What they project, gate and normalise is computed for all tokens of the pass together; only the convolution and the
recurrence know whose tokens they are. A module is taken so where it has the parts of this kind and computes
the same (``whole_passes.py``); else the family's own code is called piece by piece. Inference thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.functional import rms_norm, silu, softplus

from app.engine.generation.plan import Chunk
from app.engine.kv.row_states import RowStates
from app.engine.runners.states.delta_rule import Blocks, Heads, batches, step
from app.engine.runners.states.joint_linear import JointLinear

COMMON = {"conv1d", "norm", "out_proj"}
# Qwen3.5: a projection for each; Qwen3-Next: two, whose outputs lie by heads of keys.
APART = ("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a")
BY_HEADS = ("in_proj_qkvz", "in_proj_ba")
CONV, RECURRENT = ("conv", 0), ("recurrent", 0)
NORM_EPSILON = 1e-6


class DeltaPass:
    """What all such layers need to know of a pass: a token for each of rows ``0 .. num_rows``, and ``chunks``."""

    def __init__(self, num_rows: int, chunks: Sequence[Chunk], device: torch.device):
        self.num_rows, self.chunks = num_rows, chunks
        self.batches: list[tuple[int, int, Sequence[Chunk], Blocks]] = []
        begin = num_rows
        for some in batches([len(chunk.tokens) for chunk in chunks]) if chunks else []:
            taken = [chunks[at] for at in some]
            lengths = [len(chunk.tokens) for chunk in taken]
            blocks = Blocks(lengths, [[num for num, _ in keeps_of(chunk)] for chunk in taken], device)
            self.batches.append((begin, begin + sum(lengths), taken, blocks))
            begin += sum(lengths)


def keeps_of(chunk: Chunk) -> list[tuple[int, int]]:
    """Behind how many of the chunk's tokens states are kept, in order, and in which slots; its own row at its end."""
    return [*((end - chunk.start, slot) for end, slot in chunk.snapshots), (len(chunk.tokens), chunk.row)]


class DeltaNet:
    """Computes what ``module`` does, whose layers it calls; the form of its own is ``(tokens, ..)``."""

    def __init__(self, module: Any):
        self._module = module
        self._is_apart = hasattr(module, APART[0])
        self._project = JointLinear(module, APART if self._is_apart else BY_HEADS)
        self._num_keys, self._num_values = int(module.num_k_heads), int(module.num_v_heads)
        self._key_dim, self._value_dim = int(module.head_k_dim), int(module.head_v_dim)
        # (length, channels), as tokens lie.
        self._factors = module.conv1d.weight.detach()[:, 0].t().float().contiguous()
        self._rate = -module.A_log.detach().float().exp()
        # Queries and keys get the length one, and queries are divided by the root of their size.
        lengths = torch.tensor([self._key_dim**-0.5, 1.0], device=self._rate.device)
        self._lengths = lengths.repeat_interleave(self._num_keys)[:, None]

    def __call__(self, hidden: torch.Tensor, laid: DeltaPass, states: RowStates) -> torch.Tensor:
        """``(tokens, hidden)`` to the same; what the pass leaves is kept in ``states``."""
        mixed, gates, b, a = self._projected(hidden)
        convolved = silu(self._convolved(mixed, laid, states).to(mixed.dtype))
        read = self._read(self._heads(convolved, b, a), laid, states).to(hidden.dtype)
        made: torch.Tensor = self._module.out_proj(self._normed(read, gates).view(len(hidden), -1))
        return made

    def _projected(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values ``(tokens, channels)``, gates ``(tokens, heads, value_dim)``, what strengths and
        decays are made of ``(tokens, heads)``.
        """
        made, heads, num_tokens = self._project(hidden), self._num_values, len(hidden)
        keys, values = self._num_keys * self._key_dim, heads * self._value_dim
        if self._is_apart:
            mixed, gates, b, a = torch.split(made, [2 * keys + values, values, heads, heads], dim=-1)
            return mixed, gates.view(num_tokens, heads, -1), b, a
        by_heads, ba = torch.split(made, [2 * (keys + values), 2 * heads], dim=-1)
        of_one = [self._key_dim, self._key_dim, values // self._num_keys, values // self._num_keys]
        *parts, gates = torch.split(by_heads.view(num_tokens, self._num_keys, -1), of_one, dim=-1)
        b, a = (one.flatten(1) for one in ba.view(num_tokens, self._num_keys, -1).chunk(2, dim=-1))
        return torch.cat([one.flatten(1) for one in parts], dim=-1), gates.reshape(num_tokens, heads, -1), b, a

    def _convolved(self, mixed: torch.Tensor, laid: DeltaPass, states: RowStates) -> torch.Tensor:
        """``(tokens, channels)`` in float32, each of what its own sequence had there before."""
        length, rows, made = len(self._factors), laid.num_rows, []
        if rows:
            known = states.read(CONV, 0, rows)
            before = mixed.new_zeros(rows, length, mixed.shape[1]) if known is None else known
            entries = torch.cat((before[:, 1:], mixed[:rows, None]), dim=1)
            states.leave(CONV, 0, entries)
            made.append((entries.float() * self._factors).sum(1))
        begin = rows
        for chunk in laid.chunks:
            end = begin + len(chunk.tokens)
            kept = states.read(CONV, chunk.row, 1) if chunk.start else None
            before = mixed.new_zeros(length - 1, mixed.shape[1]) if kept is None else kept[0, 1:]
            entries = torch.cat((before, mixed[begin:end]))
            for num_tokens, slot in keeps_of(chunk):
                states.leave(CONV, slot, entries[None, num_tokens - 1 : num_tokens - 1 + length])
            made.append(self._slid(entries.float(), end - begin))
            begin = end
        return made[0] if len(made) == 1 else torch.cat(made)

    def _slid(self, entries: torch.Tensor, num_tokens: int) -> torch.Tensor:
        """``(length - 1 + tokens, channels)`` to ``(tokens, channels)``."""
        made: torch.Tensor = entries[:num_tokens] * self._factors[0]
        for at in range(1, len(self._factors)):
            made.addcmul_(entries[at : at + num_tokens], self._factors[at])
        return made

    def _heads(self, convolved: torch.Tensor, b: torch.Tensor, a: torch.Tensor) -> Heads:
        """What each head of values gets; several of them share a head of keys."""
        num_tokens, keys = len(convolved), self._num_keys * self._key_dim
        asked = convolved[:, : 2 * keys].float().reshape(num_tokens, -1, self._key_dim)
        asked = asked * (torch.rsqrt((asked * asked).sum(-1, keepdim=True) + NORM_EPSILON) * self._lengths)
        shared = self._num_values // self._num_keys
        asked = asked.view(num_tokens, 2, self._num_keys, 1, self._key_dim)
        asked = asked.expand(-1, -1, -1, shared, -1).reshape(num_tokens, 2, self._num_values, self._key_dim)
        values = convolved[:, 2 * keys :].float().reshape(num_tokens, -1, self._value_dim)
        log_decays = self._rate * softplus(a.float() + self._module.dt_bias)
        return Heads(asked[:, 0], asked[:, 1], values, log_decays, b.sigmoid().float())

    def _read(self, heads: Heads, laid: DeltaPass, states: RowStates) -> torch.Tensor:
        """``(tokens, heads, value_dim)``."""
        made = []
        if laid.num_rows:
            known = states.read(RECURRENT, 0, laid.num_rows)
            shape = (laid.num_rows, self._num_values, self._key_dim, self._value_dim)
            read, left = step(heads.part(0, laid.num_rows), heads.values.new_zeros(shape) if known is None else known)
            states.leave(RECURRENT, 0, left)
            made.append(read)
        for begin, end, chunks, blocks in laid.batches:
            read, kept = blocks.run(heads.part(begin, end), self._before(chunks, states))
            made.append(read)
            for chunk, some in zip(chunks, kept, strict=True):
                for (_, slot), state in zip(keeps_of(chunk), some, strict=True):
                    states.leave(RECURRENT, slot, state)
        return made[0] if len(made) == 1 else torch.cat(made)

    def _before(self, chunks: Sequence[Chunk], states: RowStates) -> torch.Tensor | None:
        """The states that ``chunks`` go on from; None where all begin."""
        if not any(chunk.start for chunk in chunks):
            return None
        found = [states.read(RECURRENT, chunk.row, 1) if chunk.start else None for chunk in chunks]
        known = next(one for one in found if one is not None)
        return torch.cat([torch.zeros_like(known) if one is None else one for one in found])

    def _normed(self, read: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        norm = self._module.norm
        if read.dtype != torch.float32:
            made: torch.Tensor = norm(read.flatten(0, 1), gates.reshape(-1, self._value_dim))
            return made
        normed = rms_norm(read, norm.weight.shape, norm.weight, norm.variance_epsilon)
        return normed.mul_(silu(gates))


def is_delta_net(module: nn.Module) -> bool:
    """Whether ``module`` has the parts of this kind, and no others; what it computes is another question."""
    found: Any = module
    names = {name for name, _ in module.named_children()}
    if names not in ({*COMMON, *APART}, {*COMMON, *BY_HEADS}):
        return False
    sizes = ("num_k_heads", "num_v_heads", "head_k_dim", "head_v_dim", "A_log", "dt_bias")
    if not all(hasattr(found, name) for name in sizes) or not hasattr(found.norm, "variance_epsilon"):
        return False
    return found.conv1d.bias is None and found.conv1d.weight.shape[1] == 1
