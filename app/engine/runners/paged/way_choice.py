"""Which way rows attend: of those that give what attention in float32 gives, the fastest one, measured on the device.

Asked once at a load, for one row and for as many as there may be. Inference thread only.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from app.core.logs.logging import get_logger
from app.engine.kv.blocks.entry_size import EntrySize
from app.engine.runners.paged.query_rows import Prepared, QueryWay, RowPlaces, Rule, reference

# Of the largest entry of what attention gives.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}
NUM_WARM_RUNS, NUM_RUNS = 3, 10
# Rows are as unlike as can be, and no more of them are compared: the plain way takes them one by one.
MOST_COMPARED = 4
MOST_COMPARED_TOKENS = 2048
# Memory of keys, and of values, that it is tried on.
MOST_POOL_BYTES = 1 << 28

log = get_logger("engine")


@dataclass(frozen=True)
class AttentionShape:
    """Of a model's layers: query heads, entries, what the layers want, and how rows lie."""

    num_heads: int
    size: EntrySize
    rules: tuple[Rule, ...]
    num_rows: int
    block_tokens: int
    max_tokens: int


@dataclass(frozen=True)
class Choice:
    """The ways for a lone row and for several; ``wrong`` names those that gave other numbers than they should."""

    one: QueryWay
    many: QueryWay
    wrong: tuple[str, ...]

    def of(self, num_rows: int) -> QueryWay:
        return self.one if num_rows == 1 else self.many


class Trial:
    """Random entries in the shape of a model, on which ways are tried."""

    def __init__(self, shape: AttentionShape, device: torch.device):
        self._shape, self._device = shape, device
        self._random = random.Random(0)
        self._generator = torch.Generator().manual_seed(0)
        size, block_bytes = shape.size, shape.block_tokens * shape.size.num_heads * shape.size.key_dim * 4
        num_columns = -(-shape.max_tokens // shape.block_tokens)
        self._num_blocks = 1 + max(min(num_columns * shape.num_rows, MOST_POOL_BYTES // block_bytes), 1)
        head = (self._num_blocks, shape.block_tokens, size.num_heads)
        self._keys = self._normal((*head, size.key_dim))
        self._values = self._normal((*head, size.value_dim))

    def failure(self, way: QueryWay) -> str | None:
        """How far ``way`` is from attention in float32 where that is too far, in words; raises what it raises."""
        num_rows = min(self._shape.num_rows, MOST_COMPARED)
        for rule in self._shape.rules:
            query, places = self._rows(num_rows, min(self._shape.max_tokens, MOST_COMPARED_TOKENS))
            expected = reference(query, self._keys, self._values, places, rule)
            found = way.attend(query, self._keys, self._values, Prepared(places), rule).float()
            share = float((found - expected).abs().amax() / expected.abs().amax().clamp(min=1e-12))
            if not share <= TOLERANCE[query.dtype]:
                head = int((found - expected).abs().amax(dim=(0, 2)).argmax())
                return f"differs by {share:.2g} of attention in float32, most in head {head}"
        return None

    def seconds(self, way: QueryWay, num_rows: int) -> float:
        """Of a layer, rows of unlike lengths; the median of some runs."""
        query, places = self._rows(num_rows, self._shape.max_tokens)
        times = []
        for _ in range(NUM_WARM_RUNS + NUM_RUNS):
            started_s = time.perf_counter()
            way.attend(query, self._keys, self._values, Prepared(places), self._shape.rules[0])
            if self._device.type == "cuda":
                torch.cuda.synchronize(self._device)
            times.append(time.perf_counter() - started_s)
        return sorted(times[NUM_WARM_RUNS:])[NUM_RUNS // 2]

    def _rows(self, num_rows: int, max_tokens: int) -> tuple[torch.Tensor, RowPlaces]:
        """Queries, and rows from one entry to ``max_tokens`` of them."""
        shape, blocks = self._shape, range(1, self._num_blocks)
        # A row never has a block twice: where memory is short, not all of the longest rows is tried.
        num_columns = min(-(-max_tokens // shape.block_tokens), len(blocks))
        longest = min(max_tokens, num_columns * shape.block_tokens)
        lengths = [longest - at * (longest - 1) // max(num_rows - 1, 1) for at in range(num_rows)]
        tables = [self._random.sample(blocks, num_columns) for _ in lengths]
        return self._normal((num_rows, shape.num_heads, shape.size.key_dim)), RowPlaces(
            torch.tensor(tables, dtype=torch.int32, device=self._device),
            torch.tensor(lengths, device=self._device),
            shape.block_tokens,
        )

    def _normal(self, shape: tuple[int, ...]) -> torch.Tensor:
        return torch.randn(shape, generator=self._generator).to(self._device, self._shape.size.dtype)


@torch.inference_mode()
def choose(ways: Sequence[QueryWay], shape: AttentionShape, device: torch.device) -> Choice:
    """The fastest right way for one row and for many. Raises ``RuntimeError`` where none is right."""
    trial = Trial(shape, device)
    right, wrong = [], []
    for way in ways:
        if not all(way.serves(rule) for rule in shape.rules):
            log.info("attention_way_not_used", way=way.name, reason="does not know what the model's layers want")
            continue
        try:
            failure = trial.failure(way)
        except Exception as error:
            # A kernel that this device, dtype or torch does not have.
            reason = f"raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            log.info("attention_way_not_used", way=way.name, reason=reason)
            continue
        if failure is None:
            right.append(way)
        else:
            log.warning("attention_way_wrong", way=way.name, reason=failure)
            wrong.append(way.name)
    if not right:
        raise RuntimeError("no way to attend gives what attention in float32 gives")
    sizes = sorted({1, shape.num_rows})
    taken = {size: {way.name: trial.seconds(way, size) for way in right} for size in sizes} if len(right) > 1 else {}
    best = {size: min(right, key=lambda way: taken[size][way.name]) for size in taken}
    one, many = (best.get(size, right[0]) for size in (1, shape.num_rows))
    shown = {size: {name: round(1e6 * seconds) for name, seconds in times.items()} for size, times in taken.items()}
    log.info("attention_chosen", one=one.name, many=many.name, microseconds=shown)
    return Choice(one, many, tuple(wrong))
