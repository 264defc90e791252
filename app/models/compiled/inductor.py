"""Compiles the step of a model: traced, then turned into native code by torch's inductor and a C++ compiler.

Takes a minute or more of every core and some hundred megabytes, so not in a process that serves.
"""

from __future__ import annotations

import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from app.models.compiled.package_store import PackageError
from app.models.compiled.step_graph import Head, Parts, Shape, Span

# Entries of the cache while the step is traced; any other number of two or more will do as well.
CAPACITY, LENGTH = 256, 150
MOST_TOKENS = 2**24
# Threads are counted when the step runs: workers of one machine share a package and differ in them.
# Small operations stay on one thread: where another process is busy, each meeting of threads can cost a turn of the
# scheduler's, and 250 of them made a step of 22 ms one of 250.
OPTIONS: dict[str, Any] = {"aot_inductor.package": True, "cpp.dynamic_threads": True, "cpp.min_chunk_size": 16_384}
FILES = {"layers": "layers.so", "head": "head.so"}


def require_compiler() -> None:
    """Raises ``PackageError`` where there is no C++ compiler."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise PackageError(f"compiling needs a C++ compiler, {compiler} is not there; packages made elsewhere load")


@torch.no_grad()
def compile_step(parts: Parts) -> dict[str, Path]:
    """The package's files by name, in inductor's own folder. Raises ``PackageError``."""
    require_compiler()
    try:
        return {FILES["layers"]: compiled(*span_of(parts)), FILES["head"]: compiled(*head_of(parts))}
    except PackageError:
        raise
    except Exception as error:
        cause = (str(error).strip().splitlines() or [""])[0]
        raise PackageError(f"the step could not be compiled: {type(error).__name__}: {cause}") from error


def span_of(parts: Parts) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """A span with inputs to trace it with, and which of their sizes may change."""
    shape = parts.shape
    dtype = getattr(torch, shape.dtype)
    keys = torch.zeros((1, shape.num_kv_heads, CAPACITY, shape.head_dim), dtype=dtype)
    layers = [[*weights, keys.clone(), keys.clone()] for weights in parts.layers[: shape.layers_per_call]]
    angles = torch.zeros((1, shape.head_dim), dtype=dtype)
    inputs = (
        states_of(shape),
        angles,
        angles.clone(),
        torch.tensor([LENGTH - 1]),
        torch.arange(LENGTH),
        layers,
    )
    capacity = torch.export.Dim("capacity", min=3, max=MOST_TOKENS)
    length = torch.export.Dim("length", min=2, max=MOST_TOKENS - 1)
    sizes: list[Any] = [[*[None] * (len(layer) - 2), {2: capacity}, {2: capacity}] for layer in layers]
    return Span(shape, parts.activation), inputs, (None, None, None, None, {0: length}, sizes)


def head_of(parts: Parts) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """The output layer with inputs to trace it with; none of their sizes changes."""
    return Head(parts.shape), (states_of(parts.shape), parts.head), (None, [None] * len(parts.head))


def states_of(shape: Shape) -> torch.Tensor:
    """Hidden states of one token."""
    return torch.zeros((1, shape.hidden_size), dtype=getattr(torch, shape.dtype))


def compiled(module: nn.Module, inputs: tuple[Any, ...], sizes: Any) -> Path:
    """The shared library of ``module``."""
    # Imported here: inductor takes a second, and a server that only loads packages never needs it.
    from torch._inductor import aot_compile

    threads = max(torch.get_num_threads(), 2)
    with warnings.catch_warnings():
        # torch 2.13 about its own code: every shape tree that it copies.
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.export.export(module.eval(), inputs, dynamic_shapes=sizes, strict=False)
        files = aot_compile(traced.module(), inputs, options={**OPTIONS, "cpp.threads": threads})
    if not isinstance(files, list):
        raise PackageError("this version of torch gives no list of files")
    [library] = [Path(one) for one in files if isinstance(one, str) and one.endswith(".so")]
    return library
