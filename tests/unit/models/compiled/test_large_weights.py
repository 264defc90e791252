"""Weights that compiled passes read move into one piece of memory; the model says what it said."""

from __future__ import annotations

import pytest
import torch

from app.core.settings import load_settings
from app.models.checkpoint.loader import load_checkpoint
from app.models.compiled import large_weights
from app.models.compiled.large_weights import lie_together, move_in_pieces, weights_in
from app.models.weights.fused.fused_layers import fuse_layers
from app.models.weights.packing import unpack_in_pieces
from app.models.weights.quantization import quantize


def addresses(checkpoint) -> list[int]:
    return [one.data_ptr() for one in weights_in(checkpoint)]


# Of gpt-oss two matrices of each of 4 experts in 2 layers, one after the other.
@pytest.mark.parametrize(
    ("family", "kind", "least_pauses"), [("llama", "none", 4), ("llama", "int8", 2), ("gpt_oss", "none", 16)]
)
@torch.inference_mode()
def test_weights_move_once_and_the_model_computes_the_same_at_any_time(
    model_folder, monkeypatch, family, kind, least_pauses
):
    monkeypatch.setattr(large_weights, "PIECE_BYTES", 1 << 14)
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder(family)), "FORKLIFT_COMPILE": "never"})
    checkpoint = load_checkpoint(settings, lambda _: None)
    fuse_layers(checkpoint)
    if kind == "int8":
        quantize(checkpoint, "int8", 1)
        unpack_in_pieces(checkpoint, lambda: None)
    ids = torch.tensor([[5, 6, 7, 8]])
    expected = checkpoint.model(ids).logits
    before, pauses, bytes_before = addresses(checkpoint), [], sum(one.nbytes for one in weights_in(checkpoint))

    def pause() -> None:
        pauses.append(torch.equal(checkpoint.model(ids).logits, expected))

    assert not lie_together(list(weights_in(checkpoint)))
    move_in_pieces(checkpoint, pause)
    after = addresses(checkpoint)
    assert len(pauses) >= least_pauses
    assert set(pauses) == {True}
    assert sum(one.nbytes for one in weights_in(checkpoint)) == bytes_before
    assert lie_together(list(weights_in(checkpoint)))
    assert not set(before) & set(after)
    assert all(address % 64 == 0 for address in after)
    move_in_pieces(checkpoint, pause)
    assert addresses(checkpoint) == after


def test_a_tied_head_moves_with_the_embedding(model_folder):
    settings = load_settings({"FORKLIFT_MODEL": str(model_folder("llama")), "FORKLIFT_COMPILE": "never"})
    checkpoint = load_checkpoint(settings, lambda _: None)
    fuse_layers(checkpoint)
    model = checkpoint.model
    model.get_output_embeddings().weight = model.get_input_embeddings().weight
    move_in_pieces(checkpoint, lambda: None)
    assert model.get_output_embeddings().weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()
