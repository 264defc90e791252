"""Passes by compiled C++ (``native_pass.cpp``): any number of tokens of any rows, on the model's weights and the cache.

Inference thread only. What it computes is not checked here; a load compares it (docs/architecture.md).
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch

from app.models.checkpoint.loader import Checkpoint
from app.models.compiled.native_build import activation_of
from app.models.compiled.native_tables import BLOCK_OUTPUTS, PART_WHOLES, Call, Code, Piece, Tables, Turn
from app.models.compiled.steps.step_graph import Parts
from app.models.weights.adapters.adapter_tables import AdapterTables, Run, Table, runs_of
from app.models.weights.fused.rotations import Order

# Rows of queries of a prompt whose scores are kept at once: they lie in a core's own cache for some thousand entries.
TASK_ROWS = 48
# As in the C++: entries that are widened at once, and tokens that every thread prepares for itself.
KEYS_WIDENED, VALUES_WIDENED, ALONE_TOKENS = 32, 64, 2
# More entries than any row has.
WHOLE = 1 << 40


@dataclass(frozen=True)
class Tokens:
    """What a pass is fed: ``ids`` of pieces end to end, each ``(row, start, count)``; logits behind ``wanted``.

    ``adapters`` are those of the pieces; empty where there are none.
    """

    ids: list[int]
    pieces: Sequence[tuple[int, int, int]]
    wanted: list[int]
    adapters: Sequence[Table | None] = ()

    def by_adapter(self) -> Tokens:
        """The same with the pieces of an adapter side by side; logits come in the same order as before."""
        if len(set(map(id, self.adapters))) < 2:
            return self
        firsts = [0, *accumulate(count for _, _, count in self.pieces)]
        order = sorted(range(len(self.pieces)), key=lambda at: id(self.adapters[at]))
        old = [token for at in order for token in range(firsts[at], firsts[at + 1])]
        new = {token: at for at, token in enumerate(old)}
        return Tokens(
            [self.ids[token] for token in old],
            [self.pieces[at] for at in order],
            [new[token] for token in self.wanted],
            [self.adapters[at] for at in order],
        )

    @property
    def positions(self) -> list[int]:
        return [position for _, start, count in self.pieces for position in range(start, start + count)]

    @property
    def longest(self) -> int:
        """Entries of the longest row behind the pass."""
        return max(start + count for _, start, count in self.pieces)


@dataclass(frozen=True)
class Entries:
    """Keys and values of a layer, each ``(rows, kv_heads, capacity, head_dim)`` in one piece.

    A token sees the last ``reach`` of its row, itself included, None: all. Position p lies at p modulo ``size``.
    """

    keys: torch.Tensor
    values: torch.Tensor
    reach: int | None = None
    size: int = WHOLE


@dataclass(frozen=True)
class Library:
    """The functions of a library, as ``Code`` says."""

    run: Callable[[int, int], None]
    measure: Callable[[int, int, int, int], None]


class NativePass:
    """``code`` on the weights of ``parts``, which are those of ``checkpoint``; only norms and the like are copied.

    ``pays`` says of some numbers of tokens whether a pass of so many is worth it.
    """

    def __init__(self, code: Code, checkpoint: Checkpoint, parts: Parts, pays: dict[int, bool]):
        self._code, self._shape, self._pays = code, parts.shape, pays
        self._embed: Any = checkpoint.model.get_input_embeddings()
        self._turning, self._ends = Turning(checkpoint), Ends.of(checkpoint.model.config)
        self._tables = Tables(parts, code)
        self._widest = self._tables.widest
        self.adapters = AdapterTables(checkpoint.model)
        self._call = self._usual_call()

    @property
    def is_for_all(self) -> bool:
        """Whether it makes every pass faster."""
        return all(self._pays.values())

    def serves(self, num_tokens: int) -> bool:
        """Whether a pass of so many tokens is worth it: as one of the next smaller number that is known."""
        known = [number for number in self._pays if number <= num_tokens]
        return bool(known) and self._pays[max(known)]

    def run(self, tokens: Tokens, cache: Sequence[Entries]) -> torch.Tensor:
        """Logits ``(len(tokens.wanted), vocab)`` in float32; entries are written into ``cache``, one for each layer."""
        call = self._call
        tokens = tokens.by_adapter()
        states = self._ends.embedded(self._embed(torch.tensor([tokens.ids])).float())
        turned = self._turning.of(states, tokens.positions)
        turns = (Turn * len(turned))(*(Turn(cos.data_ptr(), sin.data_ptr()) for cos, sin in turned))
        for layer, turn, kept in zip(self._tables.layers, self._turning.kinds, cache, strict=True):
            layer.keys, layer.values, layer.capacity = kept.keys.data_ptr(), kept.values.data_ptr(), kept.keys.shape[2]
            layer.reach, layer.size, layer.turn = kept.reach or 0, kept.size, turn
        pieces, wanted = (
            (Piece * len(tokens.pieces))(*(Piece(*piece) for piece in tokens.pieces)),
            torch.tensor(tokens.wanted),
        )
        logits = torch.empty((len(tokens.wanted), self._shape.vocab_size))
        call.num_tokens, call.num_pieces, call.num_wanted = len(tokens.ids), len(pieces), len(wanted)
        call.num_threads, call.pieces = torch.get_num_threads(), ctypes.addressof(pieces)
        call.states, call.turns = states.data_ptr(), ctypes.addressof(turns)
        call.num_turned = turned[0][0].shape[-1] if turned else 0
        call.wanted, call.logits = wanted.data_ptr(), logits.data_ptr()
        scratch = self._lay_out(call, tokens)
        places = torch.empty(num_places(tokens, call.task_tokens), dtype=torch.int64)
        runs = lay_out_adapters(call, tokens)
        self._code.run(ctypes.addressof(call), places.data_ptr())
        del scratch, runs
        return self._ends.told(logits)

    def _usual_call(self) -> Call:
        """What is the same in each pass."""
        shape, tables, pattern = self._shape, self._tables, self._shape.pattern
        experts = pattern.experts
        return Call(
            num_layers=shape.num_layers,
            hidden=shape.hidden_size,
            num_queries=shape.num_queries,
            num_kv_heads=shape.num_kv_heads,
            head_dim=shape.head_dim,
            intermediate=shape.intermediate_size,
            scaling=shape.scaling,
            activation=activation_of(shape),
            has_pairs=pattern.order.has_pairs,
            has_whole_norms=pattern.has_whole_norms,
            is_parallel=pattern.is_parallel,
            scale=pattern.scale,
            softcap=pattern.softcap or 0.0,
            slope=0.0 if experts is None else experts.slope,
            limit=0.0 if experts is None else experts.limit,
            layers=ctypes.addressof(tables.layers),
            task_tokens=max(TASK_ROWS // (shape.num_queries // shape.num_kv_heads), 1),
            last_norm=tables.last_norm,
            head=ctypes.addressof(tables.head),
        )

    def _lay_out(self, call: Call, tokens: Tokens) -> list[torch.Tensor]:
        """Scratch of a pass, which is to live as long as it."""
        shape, num, experts = self._shape, len(tokens.ids), self._shape.pattern.experts
        # What goes through the second half of a layer: a token once, or once for each of its experts.
        slots = num if experts is None else num * experts.top_k
        most = max(slots, len(tokens.wanted))
        heads = (shape.num_queries + 2 * shape.num_kv_heads) * shape.head_dim
        prepared = max(most, call.num_threads * ALONE_TOKENS)
        rows = call.task_tokens * shape.num_queries // shape.num_kv_heads
        call.scores_size = (
            rows * (3 * shape.head_dim + tokens.longest + 2 * KEYS_WIDENED + 1) + VALUES_WIDENED * shape.head_dim
        )
        call.row_size = self._widest
        call.packed_size = max(PART_WHOLES, 2 * BLOCK_OUTPUTS * self._widest)
        floats = {
            "inputs": prepared * shape.hidden_size,
            "heads": num * heads,
            "attended": num * shape.num_queries * shape.head_dim,
            "activated": slots * shape.intermediate_size,
            "added": num * shape.hidden_size,
            "units": prepared,
            "scores": call.num_threads * call.scores_size,
            "row": call.num_threads * call.row_size,
        }
        wholes = {"wholes": prepared * self._widest, "packed": call.num_threads * call.packed_size}
        scratch = {name: torch.empty(size) for name, size in floats.items()}
        scratch |= {name: torch.empty(size, dtype=torch.int16) for name, size in wholes.items()}
        scratch["totals"] = torch.empty(prepared * self._widest, dtype=torch.int32)
        if experts is not None:
            sizes = {"given": num * experts.num_experts, "shares": slots}
            sizes |= dict.fromkeys(("gathered", "taken"), slots * shape.hidden_size)
            scratch |= {name: torch.empty(size) for name, size in sizes.items()}
            scratch["choice"] = torch.empty(3 * slots + 3 * experts.num_experts + 2, dtype=torch.int64)
        for name, tensor in scratch.items():
            setattr(call, name, tensor.data_ptr())
        return list(scratch.values())


@dataclass(frozen=True)
class Ends:
    """What families do to embeddings in front of their layers, and to logits behind them."""

    embedding_scale: float = 1.0
    logit_scale: float = 1.0
    softcap: float | None = None

    @classmethod
    def of(cls, config: Any) -> Ends:
        """As Granite, Cohere and Gemma 2 name them."""
        factor = getattr(config, "logit_scale", 1.0) or 1.0
        factor /= getattr(config, "logits_scaling", 1.0) or 1.0
        return cls(
            getattr(config, "embedding_multiplier", 1.0), factor, getattr(config, "final_logit_softcapping", None)
        )

    def embedded(self, states: torch.Tensor) -> torch.Tensor:
        return states if self.embedding_scale == 1.0 else states * self.embedding_scale

    def told(self, logits: torch.Tensor) -> torch.Tensor:
        scaled = logits if self.logit_scale == 1.0 else logits * self.logit_scale
        return scaled if self.softcap is None else torch.tanh(scaled / self.softcap) * self.softcap


class Turning:
    """Cosines and sines of a model's layers; ``kinds`` says which of them turn the heads of each, -1: none."""

    def __init__(self, checkpoint: Checkpoint):
        model: Any = checkpoint.model.base_model
        self._rotary, self._order = model.rotary_emb, Order.HALVES
        has_types = "layer_type" in inspect.signature(model.rotary_emb.forward).parameters
        turning = [one for one in model.layers if one.pattern.order is not Order.NONE]
        types = {one.layer_idx: model.config.layer_types[one.layer_idx] if has_types else None for one in turning}
        self._types = list(dict.fromkeys(types.values()))
        self.kinds = [self._types.index(types[at]) if at in types else -1 for at in range(len(model.layers))]
        if turning:
            self._order = turning[0].pattern.order

    def of(self, states: torch.Tensor, positions: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Cosines and sines ``(num_tokens, width)`` in float32 of each kind; ``states`` are of that dtype."""
        found, at = [], torch.tensor([positions])
        for kind in self._types:
            cos, sin = self._rotary(states, at) if kind is None else self._rotary(states, at, kind)
            laid_out = [self._order.laid_out(one)[0].float().contiguous() for one in (cos, sin)]
            found.append((laid_out[0], laid_out[1]))
        return found


def lay_out_adapters(call: Call, tokens: Tokens) -> tuple[object, torch.Tensor]:
    """Which tokens are an adapter's, and room for what is between its two products: to live as long as the pass."""
    found = runs_of([(table, count) for table, (_, _, count) in zip(tokens.adapters, tokens.pieces, strict=False)])
    runs = (Run * len(found))(*found)
    call.lowered_size = max((table.num_ranks for table in tokens.adapters if table is not None), default=0)
    lowered = torch.empty(max(len(tokens.ids), call.num_threads * ALONE_TOKENS) * call.lowered_size)
    call.runs, call.num_runs, call.lowered = ctypes.addressof(runs), len(runs), lowered.data_ptr()
    return runs, lowered


def num_places(tokens: Tokens, task_tokens: int) -> int:
    """Whole numbers that a pass notes: two per token, one per piece, two per task of attention."""
    tasks = sum(-(-count // task_tokens) for _, _, count in tokens.pieces)
    return 2 * len(tokens.ids) + len(tokens.pieces) + 2 * tasks


def load_library(file: Path) -> Library:
    """The functions in ``file``; it must be known who wrote it. Raises ``OSError``, ``AttributeError``."""
    library = ctypes.CDLL(str(file))
    run, measure = library.forklift_pass, library.forklift_measure
    run.argtypes, run.restype = (ctypes.c_void_p, ctypes.c_void_p), None
    measure.argtypes, measure.restype = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64), None
    return Library(run, measure)
