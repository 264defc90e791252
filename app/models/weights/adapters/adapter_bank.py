"""Computes with several LoRA adapters at once: rows of each, and of none, in one pass. Inference thread only.

The small matrices of all adapters of a pass stand side by side. A layer multiplies all its rows by all of them, drops
what belongs to another row's adapter, and adds the rest to its own output: three operations more, however many adapters
there are. A dropped number is set to zero, not multiplied by it: what overflows in one adapter stays there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.functional import linear

from app.core.work.adapters import Adapter
from app.models.checkpoint.loader import Checkpoint
from app.models.checkpoint.transfer import sent
from app.models.weights.adapters.adapter_hosts import Host, hosts_of, shapes_of
from app.models.weights.adapters.adapter_store import AdapterStore
from app.models.weights.wide_linear import has_kernels_for

# Adapters that stand side by side although a pass has no row of theirs.
MOST_TOGETHER = 16
# Passes after which one without rows is taken out.
STALE_PASSES = 512

Rows = Sequence[tuple[Adapter | None, int]]
"""Whose rows of tokens a pass holds, in their order: an adapter, and how many."""


@dataclass(frozen=True)
class Stacked:
    """Of one host: ``down`` ``(ranks, in)``, ``up`` ``(ranks, out)``; ``owners``: of each rank, the adapter's index."""

    down: torch.Tensor
    up: torch.Tensor
    owners: tuple[int, ...]


@dataclass
class Stack:
    """Adapters side by side, in each host that one of them changes."""

    adapters: list[Adapter]
    stacked: dict[int, Stacked]
    owners: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)


@dataclass
class Pass:
    """One pass: ``indices`` ``(tokens,)`` of the tokens' adapters, -1 for none; None where all are of the only one."""

    stack: Stack
    indices: torch.Tensor | None
    masks: dict[tuple[int, ...], torch.Tensor] = field(default_factory=dict)

    def mask(self, owners: tuple[int, ...]) -> torch.Tensor | None:
        """``(tokens, ranks)``: what is not the token's own."""
        if self.indices is None:
            return None
        if (mask := self.masks.get(owners)) is None:
            if (wanted := self.stack.owners.get(owners)) is None:
                wanted = self.stack.owners[owners] = torch.tensor(owners, device=self.indices.device)
            mask = self.masks[owners] = self.indices[:, None] != wanted
        return mask


class AdapterBank:
    """Adapters of one model, which must not be changed any more; ``store`` has them for other threads."""

    def __init__(self, checkpoint: Checkpoint, max_bytes: int):
        found = hosts_of(checkpoint.model)
        self._hosts = [host for _, host in found]
        self._device = checkpoint.device
        is_slow = checkpoint.device.type == "cpu" and not has_kernels_for(checkpoint.dtype)
        self._dtype = torch.float32 if is_slow else checkpoint.dtype
        self.store = AdapterStore(shapes_of(self._hosts), max_bytes, torch.finfo(self._dtype).max)
        self._stack = Stack([], {})
        self._rows: Rows = ()
        self._pass: Pass | None = None
        self._used: dict[Adapter, int] = {}
        self._num_passes = 0
        # Changes whenever what passes read of adapters lies elsewhere.
        self.num_stacked = 0
        self._pinned: dict[int, torch.Tensor] = {}
        for at, (module, _) in enumerate(found):
            # Goes on with a layer that takes the module's place, as at a change to compiled code.
            module.register_forward_hook(partial(self._add, at))

    @contextmanager
    def rows(self, rows: Rows) -> Iterator[None]:
        """The passes inside are of ``rows``; with one entry alone, of however many tokens."""
        self._rows = rows if any(adapter is not None for adapter, _ in rows) else ()
        try:
            yield
        finally:
            self._rows, self._pass = (), None

    @property
    def now(self) -> Rows:
        """What the pass that is made now holds; empty where no adapter changes any of it."""
        return self._rows

    def pin(self, num_rows: int) -> bool:
        """Whether the pass, which has a token for each row, has any adapter; then whose its rows are lies in memory
        that stays where it is, filled up to ``num_rows`` with rows of nobody.
        """
        if not self._rows:
            return False
        now = self._begin(self._rows)
        if num_rows not in self._pinned:
            self._pinned[num_rows] = torch.empty(num_rows, dtype=torch.long, device=self._device)
        pinned = self._pinned[num_rows].fill_(-1)
        if now.indices is None:
            pinned[:1] = 0
        else:
            pinned[: len(now.indices)] = now.indices
        self._pass = Pass(now.stack, pinned)
        return True

    def begin_again(self) -> None:
        """The same pass is made once more: what it has computed is to be computed anew."""
        if self._pass is not None:
            self._pass = Pass(self._pass.stack, self._pass.indices)

    def trim(self) -> None:
        """Let go of what nobody will name any more."""
        if any(adapter.is_gone for adapter in self._stack.adapters):
            self._restack([adapter for adapter in self._stack.adapters if not adapter.is_gone])

    def _begin(self, rows: Rows) -> Pass:
        """What the layers need, made by the first of them: a pass by compiled code needs nothing."""
        wanted = list(dict.fromkeys(adapter for adapter, _ in rows if adapter is not None))
        self._num_passes += 1
        for adapter in wanted:
            self._used[adapter] = self._num_passes
        stack = self._stack_of(wanted)
        if len(rows) == 1 and len(stack.adapters) == 1:
            return Pass(stack, None)
        places = {adapter: index for index, adapter in enumerate(stack.adapters)}
        indices = [-1 if adapter is None else places[adapter] for adapter, _ in rows]
        found = sent(np.repeat(np.array(indices, dtype=np.int64), [count for _, count in rows]), self._device)
        # One row of a mask serves a pass of as many tokens as there are.
        return Pass(stack, found[:1] if len(rows) == 1 else found)

    def _stack_of(self, wanted: list[Adapter]) -> Stack:
        """``wanted`` and what was lately beside them: whoever comes and goes does not make all be moved anew."""
        missing = [adapter for adapter in wanted if adapter not in self._stack.adapters]
        stale = [adapter for adapter in self._stack.adapters if adapter not in wanted and self._is_stale(adapter)]
        if missing or stale:
            kept = [one for one in self._stack.adapters if one not in stale][: max(MOST_TOGETHER - len(missing), 0)]
            kept += [one for one in wanted if one not in kept]
            self._restack(kept)
        return self._stack

    def _restack(self, adapters: list[Adapter]) -> None:
        # The old one's memory is free before the new one's is taken.
        self._stack = Stack([], {})
        self.num_stacked += 1
        self._stack = self._stacked(adapters)
        self._used = {adapter: self._used[adapter] for adapter in adapters}

    def _is_stale(self, adapter: Adapter) -> bool:
        return adapter.is_gone or self._num_passes - self._used[adapter] > STALE_PASSES

    def _stacked(self, adapters: list[Adapter]) -> Stack:
        stacked = {}
        for at, host in enumerate(self._hosts):
            if any(name in adapter.parts for adapter in adapters for name in host.layers):
                stacked[at] = self._of_host(host, adapters)
        return Stack(adapters, stacked)

    def _of_host(self, host: Host, adapters: list[Adapter]) -> Stacked:
        downs, ups, owners = [], [], []
        for index, adapter in enumerate(adapters):
            for name, (first, count) in host.layers.items():
                if (part := adapter.parts.get(name)) is None:
                    continue
                rank = len(part.down)
                up = torch.zeros(rank, host.num_out)
                up[:, first : first + count] = torch.from_numpy(part.up)
                downs.append(torch.from_numpy(part.down))
                ups.append(up)
                owners += [index] * rank
        down, up = (torch.cat(some).to(self._device, self._dtype) for some in (downs, ups))
        return Stacked(down, up, tuple(owners))

    def _add(self, at: int, _module: nn.Module, inputs: tuple[Any, ...], output: torch.Tensor) -> torch.Tensor | None:
        """Add to ``output`` ``(.., out)`` of a host what the tokens' adapters change."""
        if not self._rows:
            return None
        if self._pass is None:
            self._pass = self._begin(self._rows)
        now = self._pass
        if (stacked := now.stack.stacked.get(at)) is None:
            return None
        rows = inputs[0].reshape(-1, stacked.down.shape[1])
        found = linear(rows.to(self._dtype), stacked.down)
        mask = now.mask(stacked.owners)
        if mask is not None:
            found.masked_fill_(mask, 0)
        added = output.reshape(-1, output.shape[-1])
        if output.dtype == self._dtype:
            return torch.addmm(added, found, stacked.up).view(output.shape)
        return (added + (found @ stacked.up)).to(output.dtype).view(output.shape)
