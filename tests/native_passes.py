"""Whole passes by C++ that is compiled here, hardly optimised: seconds, once per kind of weights and cache."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from app.models.checkpoint.loader import Checkpoint
from app.models.compiled import native_build
from app.models.compiled.native_pass import Library, NativePass, load_library
from app.models.compiled.step_graph import Parts, Shape, parts_of

COMPILER = "g++"

LIBRARIES: dict[tuple[str, str], Library] = {}


def library_for(kinds: tuple[str, str], shape: Shape) -> Library:
    """The library for a shape; for another one of the same kinds it is the same."""
    if kinds not in LIBRARIES:
        LIBRARIES[kinds] = made_library(shape)
    return LIBRARIES[kinds]


def made_library(shape: Shape) -> Library:
    """Compiled now."""
    with TemporaryDirectory() as folder:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native_build, "FLAGS", tuple("-O1" if one == "-O3" else one for one in native_build.FLAGS))
            library = native_build.compile_pass(shape, COMPILER, Path(folder))
        assert library is not None
        return load_library(library)


def native_pass(checkpoint: Checkpoint, parts: Parts | str | None = None) -> NativePass:
    """The pass of a model of fused layers, for every number of tokens."""
    found = parts_of(checkpoint) if parts is None else parts
    assert not isinstance(found, str), found
    kinds = native_build.kinds_of(found.shape)
    assert kinds is not None
    return NativePass(library_for(kinds, found.shape), checkpoint, found, {1: True})
