"""Compiled layers of encoders: which models they are for, and the packages that hold them.

Inference thread only, or a process that compiles. What the code computes is compared at each load and change.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel

from app.core.settings import Settings
from app.models.compiled.compiled_step import find_package, gains, steps_in, store_of
from app.models.compiled.native_build import LIBRARY, compile_library, suits_processor
from app.models.compiled.package_store import PackageError
from app.models.encoders import native_encoder
from app.models.encoders.encoder_model import EncoderModel
from app.models.encoders.native_encoder import EncoderShape, NativeEncoder, encoder_shape, load_encoder_library
from app.models.encoders.unpadded import can_unpad, is_unpadded, layers_of, passing, unpadded_encoder

SOURCE = Path(native_encoder.__file__).with_suffix(".cpp")


def layers_shape(model: PreTrainedModel) -> EncoderShape | str:
    """Of an encoder whose texts run without padding, or could; in words where there is no code for it."""
    if not can_unpad(model) and not is_unpadded(model):
        return "its layers are not of BERT's kind"
    return encoder_shape(model, layers_of(model)) if suits_processor() else "there is no code for this processor"


def find_layers(model: PreTrainedModel, settings: Settings) -> NativeEncoder | str:
    """The code of the package that fits; or in words why none is used."""
    shape = layers_shape(model)
    if isinstance(shape, str):
        return shape
    try:
        package = find_package(shape, store_of(settings))
        paying = gains(package.about)
        pays = {number: number in paying for number in steps_in(package.about)}
        return NativeEncoder(load_encoder_library(package.path / LIBRARY), layers_of(model), shape, pays)
    except PackageError as error:
        return str(error)
    except (OSError, AttributeError) as error:
        return f"its package cannot be loaded: {(str(error).splitlines() or [''])[0]}"


def compile_layers(compiler: str, folder: Path) -> Path:
    """The library, in ``folder``. Raises ``PackageError``."""
    return compile_library(SOURCE, compiler, folder)


def install(model: PreTrainedModel, native: NativeEncoder | None) -> None:
    """Have passes run on the code, or as before without any."""
    encoder = unpadded_encoder(model)
    assert encoder is not None, "only layers without padding have code"
    encoder.native = native


def has_native_layers(model: PreTrainedModel) -> bool:
    """Whether passes run on compiled code."""
    encoder = unpadded_encoder(model)
    return encoder is not None and encoder.native is not None


@torch.inference_mode()
def states_of(model: EncoderModel, rows: Sequence[list[int]], native: NativeEncoder | None) -> torch.Tensor:
    """The last layer's states ``(num_rows, size)`` of those tokens of ``rows`` that it computes, by code or eagerly.

    On the code also where a pass of so many tokens is not worth it.
    """
    checkpoint, lengths = model.checkpoint.model, [len(row) for row in rows]
    encoder = unpadded_encoder(checkpoint)
    assert encoder is not None, "only layers without padding have code"
    ids = torch.tensor([row + [model.pad_id] * (max(lengths) - len(row)) for row in rows])
    mask = torch.tensor([[1] * length + [0] * (max(lengths) - length) for length in lengths])
    kept: list[torch.Tensor] = []
    before = encoder.native
    hook = encoder.register_forward_hook(lambda _module, _inputs, output: kept.append(output.last_hidden_state))
    install(checkpoint, None if native is None else native.for_any_size())
    try:
        with passing(checkpoint, lengths):
            checkpoint(input_ids=ids, attention_mask=mask)
    finally:
        hook.remove()
        install(checkpoint, before)
    num_rows = [1] * len(lengths) if encoder.is_first_enough else lengths
    return torch.cat([states[:num] for states, num in zip(kept[0], num_rows, strict=True)])
