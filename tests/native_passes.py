"""Whole passes by C++ that is compiled here, hardly optimised: seconds, once per kind of weights and cache.

Layers of encoders as well, once.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from transformers import PreTrainedModel

from app.models.checkpoint.loader import Checkpoint
from app.models.compiled import native_build
from app.models.compiled.native_pass import Library, NativePass, load_library
from app.models.compiled.steps.step_graph import Parts, parts_of
from app.models.compiled.steps.step_shape import Shape
from app.models.encoders.encoder_code import compile_layers, layers_shape
from app.models.encoders.native_encoder import EncoderLibrary, NativeEncoder, load_encoder_library
from app.models.encoders.unpadded import layers_of
from app.models.weights.fused.fused_layers import lay_for_code

COMPILER = "g++"

LIBRARIES: dict[tuple[str, ...], Library] = {}


def library_for(kinds: tuple[str, ...], shape: Shape) -> Library:
    """The library for a shape; for another one of the same kinds it is the same."""
    if kinds not in LIBRARIES:
        LIBRARIES[kinds] = made_library(shape)
    return LIBRARIES[kinds]


def made_library(shape: Shape) -> Library:
    """Compiled now."""
    with TemporaryDirectory() as folder:
        library = quickly(lambda: native_build.compile_pass(shape, COMPILER, Path(folder)))
        assert library is not None
        return load_library(library)


def quickly(compiled: Callable[[], Path | None]) -> Path | None:
    """A library that is hardly optimised."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_build, "FLAGS", tuple("-O1" if one == "-O3" else one for one in native_build.FLAGS))
        return compiled()


@cache
def encoder_library() -> EncoderLibrary:
    """Of the layers of encoders."""
    with TemporaryDirectory() as folder:
        library = quickly(lambda: compile_layers(COMPILER, Path(folder)))
        assert library is not None
        return load_encoder_library(library)


def native_encoder(model: PreTrainedModel) -> NativeEncoder:
    """The layers of a model whose texts run without padding, for every number of tokens."""
    shape = layers_shape(model)
    assert not isinstance(shape, str), shape
    return NativeEncoder(encoder_library(), layers_of(model), shape, {1: True})


def native_pass(checkpoint: Checkpoint, parts: Parts | str | None = None) -> NativePass:
    """The pass of a model of fused layers, for every number of tokens."""
    lay_for_code(checkpoint)
    found = parts_of(checkpoint) if parts is None else parts
    assert not isinstance(found, str), found
    kinds = native_build.kinds_of(found.shape)
    assert kinds is not None
    return NativePass(library_for(kinds, found.shape), checkpoint, found, {1: True})
