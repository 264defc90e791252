"""Faults to plant in the engine, in what is done to the weights, and in transformers, for the check at a load to find.

``PLANTED[name](patch)`` plants one, with ``setattr`` or pytest's ``monkeypatch.setattr``. Each is small, and none
raises by itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

Patch = Callable[[Any, str, Any], None]


def changed_mask(patch: Patch) -> None:
    """A mask that is handed in to transformers is no longer taken as it is."""
    from transformers import masking_utils

    prepare_mask = masking_utils._preprocess_mask_arguments

    def changed(config: Any, inputs: Any, mask: Any, *args: Any, **kwargs: Any) -> Any:
        is_ready = isinstance(mask, torch.Tensor) and mask.ndim == 4
        return prepare_mask(config, inputs, torch.zeros_like(mask) if is_ready else mask, *args, **kwargs)

    patch(masking_utils, "_preprocess_mask_arguments", changed)


def wrong_head(patch: Patch) -> None:
    """A fused layer gives nothing for one of its heads, and the check of single layers does not see it."""
    from app.models.weights.fused import fused_layers

    attend = fused_layers.FusedLayer._attend

    def without_head(layer: Any, *args: Any) -> torch.Tensor:
        attended = attend(layer, *args).clone()
        attended[..., : layer.head_dim] = 0
        return attended

    patch(fused_layers.FusedLayer, "_attend", without_head)
    patch(fused_layers, "compare", lambda _fused, _layer, pattern, *_: pattern)


def lost_cache(patch: Patch) -> None:
    """A fused layer stores nothing, as when transformers 5.24 gave the argument for the cache a new name."""
    from app.models.weights.fused import fused_layers

    attend = fused_layers.FusedLayer._attend

    def forgetful(layer: Any, normed: Any, mask: Any, _cache: Any, *args: Any) -> torch.Tensor:
        return attend(layer, normed, mask, None, *args)

    patch(fused_layers.FusedLayer, "_attend", forgetful)
    patch(fused_layers, "compare", lambda _fused, _layer, pattern, *_: pattern)


def transposed_weight(patch: Patch) -> None:
    """A square weight lies transposed after packing."""
    from app.engine.checks import features

    def pack_wrongly(checkpoint: Any) -> None:
        linear = [one for one in checkpoint.model.modules() if isinstance(one, torch.nn.Linear)]
        square = next(one for one in linear if one.in_features == one.out_features)
        square.weight = torch.nn.Parameter(square.weight.detach().t().contiguous(), requires_grad=False)

    patch(features, "pack", pack_wrongly)


def bad_scale(patch: Patch) -> None:
    """A quantised layer gives four times what it should."""
    from app.engine.checks import features

    quantize = features.quantize

    def quantize_wrongly(checkpoint: Any, *args: Any) -> None:
        quantize(checkpoint, *args)
        layer = next(one for name, one in checkpoint.model.named_modules() if name.endswith("down_proj"))
        layer.register_forward_hook(lambda _module, _inputs, output: output * 4)

    patch(features, "quantize", quantize_wrongly)


def write_too_far(patch: Patch) -> None:
    """The cache writes a next token one place too far."""
    from app.engine.kv.cache import Window

    write = Window.write

    def too_far(window: Any, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        if window.is_single and window.start and window.length < buffer.shape[2]:
            row = buffer[window.first : window.first + 1]
            row[:, :, window.start + 1 : window.length + 1] = states
            return row[:, :, : window.length]
        return write(window, buffer, states)

    patch(Window, "write", too_far)


def dropped_chunk(patch: Patch) -> None:
    """A mixed pass does not store the last of its chunks."""
    from app.engine.runners.mixed import MixedWindow

    write = MixedWindow.write

    def without_last(window: Any, buffer: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        chunks = window.chunks
        window.chunks = chunks[:-1] if chunks and len(chunks) > 1 else chunks
        try:
            return write(window, buffer, states)
        finally:
            window.chunks = chunks

    patch(MixedWindow, "write", without_last)


def stale_graph(patch: Patch) -> None:
    """A recorded step gives what it gave when it was recorded."""
    from app.engine.runners.graphs.op_recorder import OpRecording

    patch(OpRecording, "replay", lambda _recording: None)


def stuck_graph(patch: Patch) -> None:
    """A recorded step is right once, and repeats itself from then on."""
    from app.engine.runners.graphs.op_recorder import OpRecording

    replay = OpRecording.replay

    def once(recording: Any) -> None:
        if not hasattr(recording, "was_replayed"):
            recording.was_replayed = True
            replay(recording)

    patch(OpRecording, "replay", once)


def raising_capture(patch: Patch) -> None:
    """Nothing can be recorded."""
    from app.engine.runners.graphs.op_recorder import OpRecorder

    def record(_recorder: Any, _work: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing")

    patch(OpRecorder, "record", record)


def wrong_query_head(patch: Patch) -> None:
    """Rows that attend to blocks get nothing for one of their heads, and the check of single ways does not see it."""
    from app.engine.runners.paged import way_choice
    from app.engine.runners.paged.gathered_ways import GatheredHeadsWay, GatheredWay

    for way in (GatheredWay, GatheredHeadsWay):
        plain = way._plain

        def without_head(*args: Any, plain: Any = plain) -> torch.Tensor:
            found = plain(*args).clone()
            found[:, 1] = 0
            return found

        patch(way, "_plain", without_head)
    patch(way_choice.Trial, "failure", lambda *_: None)


def positions_off(patch: Patch) -> None:
    """The entries of a prefix that is reused lie one place off."""
    from app.engine.generation.executor import Executor

    run = Executor.run

    def shifted(executor: Any, step: Any, guard: Any) -> Any:
        for move in step.plan.moves:
            executor._move(move, guard)
        for sequence, chunk in zip(step.reading, step.plan.chunks, strict=True):
            if chunk.start and chunk.start == sequence.job.usage.cached_tokens:
                for layer in executor._runner.cache.row_layers:
                    for buffer in (layer.keys, layer.values):
                        buffer[chunk.row, :, : chunk.start - 1] = buffer[chunk.row, :, 1 : chunk.start].clone()
        return run(executor, replace(step, plan=replace(step.plan, moves=())), guard)

    patch(Executor, "run", shifted)


def swapped_rows(patch: Patch) -> None:
    """A runner gives the logits of two rows in each other's place."""
    from app.engine.runners.eager import EagerRunner

    decode = EagerRunner.decode
    patch(EagerRunner, "decode", lambda runner, tokens, starts: decode(runner, tokens, starts).flip(0))


def wrong_sampler_row(patch: Patch) -> None:
    """A sampler is given the row of its neighbour."""
    from app.engine.generation import batched as generation

    choose = generation.choose
    patch(generation, "choose", lambda logits, rows: choose(logits.roll(1, 0), rows))


def nan_layer(patch: Patch) -> None:
    """One layer gives NaN."""
    from app.engine.loading import build as preparation

    load = preparation.load_checkpoint

    def load_broken(*args: Any) -> Any:
        checkpoint = load(*args)
        norm = next(one for name, one in checkpoint.model.named_modules() if name.endswith("post_attention_layernorm"))
        norm.register_forward_hook(lambda _module, _inputs, output: output * math.nan)
        return checkpoint

    patch(preparation, "load_checkpoint", load_broken)


PLANTED: dict[str, Callable[[Patch], None]] = {
    plant.__name__: plant
    for plant in (
        changed_mask,
        wrong_head,
        lost_cache,
        transposed_weight,
        bad_scale,
        write_too_far,
        dropped_chunk,
        stale_graph,
        stuck_graph,
        raising_capture,
        wrong_query_head,
        positions_off,
        swapped_rows,
        wrong_sampler_row,
        nan_layer,
    )
}
