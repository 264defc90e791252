"""Passes by compiled C++ beside eager ones, on caches of their own."""

from __future__ import annotations

import random
from itertools import pairwise

import torch

from app.engine.checks.reference import distance
from app.engine.generation.plan import Chunk
from app.engine.runners.compiled import NativePasses, NativeRunner, NativeWindowedRunner
from app.engine.runners.mixed import MixedRunner
from app.engine.runners.windowed import WindowedRunner
from app.models.checkpoint.layer_kinds import are_plain, layer_kinds
from app.models.checkpoint.loader import Checkpoint
from tests.native_passes import native_pass
from tests.unit.engine.driver import random_prompt

NUM_ROWS, MAX_TOKENS, MOST_NEW = 4, 256, 64
# Entries of the first row behind all passes.
NUM_WRITTEN = 187


def runners_of(checkpoint: Checkpoint) -> tuple[NativePasses, MixedRunner]:
    """One on code, and an eager one."""
    sizes = checkpoint, NUM_ROWS, MAX_TOKENS
    if are_plain(layer_kinds(checkpoint.model.config, MAX_TOKENS)):
        return NativeRunner(native_pass(checkpoint), *sizes), MixedRunner(*sizes)
    return (
        NativeWindowedRunner(native_pass(checkpoint), *sizes, most_new=MOST_NEW),
        WindowedRunner(*sizes, most_new=MOST_NEW),
    )


def compare_passes(checkpoint: Checkpoint, tolerance: float) -> None:
    """Prompts in pieces, rows, drafts and mixed passes, then rows that go around their rings."""
    runners, tokens = runners_of(checkpoint), random_prompt(random.Random(3), 200)
    chunk = Chunk(2, tokens[:33], 0, all_logits=True)
    passes = [
        lambda one: one.prefill(0, tokens[:5], 0),
        *((lambda one, a=a, b=b: one.prefill(0, tokens[a:b], a, all_logits=True)) for a, b in pairwise((5, 25, 81))),
        lambda one: one.prefill(1, tokens[:7], 0, all_logits=True),
        lambda one: one.decode([[5], [6]], [81, 7]),
        lambda one: one.decode([[5, 6, 7], [6, 7, 8]], [82, 8]),
        lambda one: one.mixed([4, 3], [85, 11], [chunk, Chunk(3, [9], 0)])[0],
        lambda one: one.mixed([4, 3], [86, 12], [Chunk(2, tokens[33:40], 33), chunk])[1][1],
        *((lambda one, i=i: one.decode([[5 + i], [6 + i]], [87 + i, 13 + i])) for i in range(100)),
    ]
    for make in passes:
        found, expected = (make(one).float() for one in runners)
        assert float(distance(found, expected).max()) <= tolerance
    for ours, theirs in zip(*(one.cache.row_layers for one in runners), strict=True):
        # Of a ring all has been written, of others as much as there were tokens.
        room = min(ours.keys.shape[2], theirs.keys.shape[2], NUM_WRITTEN)
        written = ours.keys[0, :, :room].float(), theirs.keys[0, :, :room].float()
        assert torch.allclose(*written, atol=tolerance * float(written[1].abs().max()))
