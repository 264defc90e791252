"""Each way in which rows attend to entries in blocks gives what attention in float32 gives, for rows of any length."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from structlog.testing import capture_logs
from torch.nn.attention import flex_attention as flex_module

from app.engine.kv.blocks.entry_size import EntrySize
from app.engine.runners.graphs.op_recorder import OpRecorder
from app.engine.runners.paged import varlen_way
from app.engine.runners.paged.flex_way import FlexWay
from app.engine.runners.paged.gathered_ways import GatheredHeadsWay, GatheredWay
from app.engine.runners.paged.query_rows import Prepared, QueryWay, RowPlaces, Rule, reference
from app.engine.runners.paged.varlen_way import VarlenWay
from app.engine.runners.paged.way_choice import AttentionShape, choose
from app.models.checkpoint.layer_kinds import FULL, LayerKind

MOST_ROWS = 6


@dataclass(frozen=True)
class Case:
    """A shape of attention: query heads on heads of keys, and rows of so many entries."""

    group: int
    kv_heads: int
    dim: int
    lengths: tuple[int, ...]
    kind: LayerKind = FULL
    has_sinks: bool = False
    softcap: float | None = None
    block_tokens: int = 16
    value_dim: int = 0


def cases() -> list[Case]:
    """Groups of 1 to 8, heads of 64 to 256, windows, pieces, sinks, caps, lengths of 1 to 4,000."""
    found = [
        Case(1, 2, 64, (1,)),
        Case(1, 1, 64, (4000,), block_tokens=64),
        Case(2, 2, 128, (1, 4000), block_tokens=64),
        Case(8, 1, 256, (17, 1, 700)),
        Case(4, 2, 96, (16, 32, 33, 15, 1, 48)),
        Case(3, 2, 80, (5, 300), LayerKind(32)),
        Case(7, 1, 64, (2000, 3), LayerKind(512), has_sinks=True, block_tokens=32),
        Case(8, 2, 64, (130, 129, 128), LayerKind(128), has_sinks=True),
        Case(2, 2, 128, (64, 65, 1), LayerKind(64, by_chunk=True)),
        Case(2, 1, 256, (50, 4), softcap=5.0),
        Case(1, 2, 64, (90, 14), LayerKind(20), softcap=3.0, has_sinks=True),
        Case(4, 1, 128, (33, 70), value_dim=64),
    ]
    rng = random.Random(0)
    while len(found) < 30:
        kind = rng.choice((FULL, FULL, LayerKind(rng.choice((1, 16, 100))), LayerKind(48, by_chunk=True)))
        lengths = tuple(rng.choice((1, 2, 16, 17, 200, rng.randrange(1, 900))) for _ in range(rng.randrange(1, 6)))
        dim, heads = rng.choice((64, 72, 128, 192, 256)), rng.randrange(1, 4)
        case = Case(rng.randrange(1, 9), heads, dim, lengths, kind, rng.random() < 0.3)
        found.append(case)
    return found


def rows_of(case: Case, seed: int = 0, dtype: torch.dtype = torch.float32):
    """Queries, keys, values, places and rule; blocks of the rows lie anywhere, in any order, some shared."""
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    num_columns = -(-max(case.lengths) // case.block_tokens)
    num_blocks = num_columns * 2 + 3
    shape = (num_blocks, case.block_tokens, case.kv_heads)
    keys, values = (
        torch.randn((*shape, dim), generator=generator).to(dtype) for dim in (case.dim, case.value_dim or case.dim)
    )
    query = torch.randn((len(case.lengths), case.kv_heads * case.group, case.dim), generator=generator).to(dtype)
    tables = torch.zeros((len(case.lengths), num_columns), dtype=torch.int32)
    for row, length in enumerate(case.lengths):
        used = -(-length // case.block_tokens)
        tables[row, :used] = torch.tensor(rng.sample(range(1, num_blocks), used), dtype=torch.int32)
    sinks = torch.randn(case.kv_heads * case.group, generator=generator) if case.has_sinks else None
    places = RowPlaces(tables, torch.tensor(case.lengths), case.block_tokens)
    return query, keys, values, places, Rule(case.dim**-0.5, case.kind, sinks, case.softcap)


@pytest.fixture
def uncompiled(monkeypatch):
    """torch's FlexAttention without its compiler, which takes seconds for each shape."""
    monkeypatch.setattr(flex_module, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


def way_named(name: str) -> QueryWay:
    ways = {"gathered": GatheredWay, "heads": GatheredHeadsWay}
    return FlexWay(MOST_ROWS, flex_module.flex_attention) if name == "flex" else ways[name]()


@torch.inference_mode()
@pytest.mark.parametrize("name", ["gathered", "heads", pytest.param("flex", marks=pytest.mark.slow)])
def test_each_way_is_attention_in_float32_for_30_shapes(uncompiled, name):
    way = way_named(name)
    assert len(cases()) == 30
    for seed, case in enumerate(cases()):
        query, keys, values, places, rule = rows_of(case, seed)
        assert way.serves(rule)
        found = way.attend(query, keys, values, Prepared(places), rule)
        torch.testing.assert_close(found, reference(query, keys, values, places, rule), atol=1e-5, rtol=1e-5, msg=str)


def flash_reference(query, keys, values, starts, _cu_seq_k, max_q, max_k, **options):
    """``varlen_attn`` as its page describes it, for one query at the end of each sequence."""
    assert starts.tolist() == list(range(len(query) + 1)) and starts.dtype == torch.int32 and max_q == 1
    assert options["enable_gqa"] == (query.shape[1] != keys.shape[2])
    tables, lengths = options["block_table"], options["seqused_k"]
    assert tables.dtype == lengths.dtype == torch.int32 and max_k == tables.shape[1] * keys.shape[1]
    left = options["window_size"][0]
    kind = FULL if left < 0 else LayerKind(left + 1)
    places = RowPlaces(tables, lengths.long(), keys.shape[1])
    found = reference(query, keys, values, places, Rule(options["scale"], kind))
    plain = torch.zeros(len(query), query.shape[1])
    for row, length in enumerate(lengths.tolist()):
        first = 0 if left < 0 else max(length - left - 1, 0)
        mine = (
            keys[tables[row].long()].flatten(0, 1)[first:length].repeat_interleave(query.shape[1] // keys.shape[2], 1)
        )
        plain[row] = torch.einsum("hd,lhd->hl", query[row], mine).mul(options["scale"]).logsumexp(-1)
    return found, plain.t()


@torch.inference_mode()
def test_varlen_attention_is_asked_for_the_same(monkeypatch):
    """torch has it on GPUs only: here its described meaning stands in for it."""
    monkeypatch.setattr(varlen_way, "varlen_attn", flash_reference)
    served = [case for case in cases() if VarlenWay().serves(rows_of(case)[-1])]
    assert len(served) > 20
    for case in served:
        query, keys, values, places, rule = rows_of(case)
        found = VarlenWay().attend(query, keys, values, Prepared(places), rule)
        torch.testing.assert_close(found, reference(query, keys, values, places, rule), atol=1e-5, rtol=1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["gathered", "heads", "flex"])
def test_each_way_can_be_recorded_and_follows_rows_that_grow(uncompiled, name):
    query, keys, values, places, rule = rows_of(Case(2, 2, 64, (20, 3, 40), LayerKind(24)))
    way = way_named(name)
    recording = OpRecorder().record(lambda: way.attend(query, keys, values, Prepared(places), rule))
    for _ in range(2):
        places.lengths.add_(3)
        query.normal_()
        # Each block is another one now; nobody's stays that.
        places.tables.copy_(torch.where(places.tables > 0, places.tables % (len(keys) - 1) + 1, 0))
        recording.replay()
        expected = reference(query, keys, values, places, rule)
        torch.testing.assert_close(recording.output, expected, atol=1e-5, rtol=1e-5)


def shape_of(dtype: torch.dtype = torch.float32, **fields) -> AttentionShape:
    rules = (Rule(0.125), Rule(0.125, LayerKind(40), torch.linspace(-1, 1, 8)))
    given = {"rules": rules, "num_rows": 5, "block_tokens": 16, "max_tokens": 300, **fields}
    return AttentionShape(8, EntrySize(2, 64, 64, dtype), **given)


class WrongHeadWay(GatheredWay):
    """Right but for one head of a lone query."""

    name = "wrong in one head"

    def attend(self, query, keys, values, prepared, rule):
        found = super().attend(query, keys, values, prepared, rule).clone()
        found[:, 3] = found[:, 2]
        return found


class RaisingWay(GatheredWay):
    name = "raising"

    def attend(self, *_args):
        raise RuntimeError("no kernel image is available\nfor execution")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_of_the_right_ways_one_is_chosen_and_what_is_wrong_is_named(dtype):
    with capture_logs() as lines:
        ways = [WrongHeadWay(), RaisingWay(), GatheredWay(), GatheredHeadsWay()]
        choice = choose(ways, shape_of(dtype), torch.device("cpu"))
    assert {choice.one.name, choice.many.name} <= {GatheredWay.name, GatheredHeadsWay.name}
    assert choice.wrong == ("wrong in one head",)
    events = {line["event"]: line for line in lines}
    assert events["attention_way_wrong"]["way"] == "wrong in one head"
    assert events["attention_way_wrong"]["reason"].endswith("most in head 3")
    assert events["attention_way_not_used"]["reason"] == "raises RuntimeError: no kernel image is available"
    assert set(events["attention_chosen"]["microseconds"]) == {1, 5}


def test_a_way_that_does_not_know_what_the_layers_want_is_not_chosen():
    capped = shape_of(rules=(Rule(0.125, softcap=4.0),))
    choice = choose([VarlenWay(), GatheredWay()], capped, torch.device("cpu"))
    assert (choice.one.name, choice.many.name, choice.wrong) == ("gathered", "gathered", ())


def test_without_a_right_way_there_is_none():
    with pytest.raises(RuntimeError, match="no way to attend"):
        choose([WrongHeadWay(), RaisingWay()], shape_of(), torch.device("cpu"))
