"""Compiles the step of a model: traced, then turned into native code by torch's inductor and a C++ compiler.

Takes a minute or more of every core and some hundred megabytes, so not in a process that serves.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import torch
from torch import nn

from app.models.compiled.package_store import PackageError, require_private
from app.models.compiled.steps.step_graph import Head, Parts, Span
from app.models.compiled.steps.step_shape import Shape

# Entries of the cache while the step is traced; any other number of two or more will do as well.
CAPACITY, LENGTH = 256, 150
MOST_TOKENS = 2**24
MOST_ROWS = 2**16
# Threads are counted when the step runs: workers of one machine share a package and differ in them.
# Small operations stay on one thread: where another process is busy, each meeting of threads can cost a turn of the
# scheduler's, and 250 of them made a step of 22 ms one of 250.
OPTIONS: dict[str, Any] = {
    "aot_inductor.package": True,
    "cpp.dynamic_threads": True,
    "cpp.min_chunk_size": 16_384,
    # A product and a sum in one instruction: a tenth of the time of one row in bfloat16.
    "cpp.enable_floating_point_contract_flag": "fast",
}
# g++ moves 16 bytes at a time where torch loads a vector of 32-bit numbers before AVX-512 by way of the stack, and the
# processor then waits for both halves: codes of 8 bits took 4.6 times as long.
WIDE_MOVES = ("-mmove-max=256", "-mstore-max=256")
# How many rows a step is compiled for; fewer rows than the second run on it, some of them twice.
ROWS = (1, 4)
# Rows of the cache while the step of several is traced; any other number of two or more will do as well.
CACHE_ROWS = 5


def files_of(num_rows: int) -> tuple[str, str]:
    """Names of the code of the layers and of the head, for so many rows."""
    return f"layers-{num_rows}.so", f"head-{num_rows}.so"


def compiler() -> str:
    """The C++ compiler that is asked for."""
    return os.environ.get("CXX", "g++")


def has_compiler() -> bool:
    """Whether it is there."""
    return shutil.which(compiler()) is not None


def require_compiler() -> None:
    """Raises ``PackageError`` where there is no C++ compiler."""
    if not has_compiler():
        raise PackageError(f"compiling needs a C++ compiler, {compiler()} is not there; packages made elsewhere load")


def compiler_command(folder: Path) -> str:
    """The compiler, by a script in ``folder`` that adds ``WIDE_MOVES`` where it knows them."""
    asked = [compiler(), *WIDE_MOVES, "-x", "c++", "-E", os.devnull]
    if subprocess.run(asked, capture_output=True, check=False).returncode != 0:
        return compiler()
    script = folder / "compiler"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(compiler())} "$@" {" ".join(WIDE_MOVES)}\n', encoding="utf-8")
    script.chmod(0o700)
    return str(script)


def use_private_folder(cache_dir: Path) -> None:
    """Have what torch compiles in this process lie below ``cache_dir``, where the next load finds it.

    Its own default is a folder of a known name below /tmp, and what lies there is run. Where ``cache_dir`` cannot be
    written to, or others can, it is a new folder that nobody else can open.
    """
    if "TORCHINDUCTOR_CACHE_DIR" in os.environ:
        return
    folder = cache_dir / "inductor"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_private(folder)
    except (OSError, PackageError):
        folder = Path(mkdtemp(prefix="forklift-inductor-"))
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)


@torch.no_grad()
def compile_step(parts: Parts) -> dict[str, Path]:
    """The package's files by name, in inductor's own folder. Raises ``PackageError``."""
    require_compiler()
    files: dict[str, Path] = {}
    try:
        with TemporaryDirectory() as folder:
            command = compiler_command(Path(folder))
            for num_rows in ROWS:
                for name, traced in zip(files_of(num_rows), (span_of, head_of), strict=True):
                    files[name] = compiled(*traced(parts, num_rows), command)
        return files
    except PackageError:
        raise
    except Exception as error:
        cause = (str(error).strip().splitlines() or [""])[0]
        raise PackageError(f"the step could not be compiled: {type(error).__name__}: {cause}") from error


def span_of(parts: Parts, num_rows: int) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """A span with inputs to trace it with, and which of their sizes may change."""
    shape, activation = parts.shape, parts.activation
    assert activation is not None, "layers with experts are of another kind"
    dtype = getattr(torch, shape.dtype)
    cache_rows = 1 if num_rows == 1 else CACHE_ROWS
    keys = torch.zeros((cache_rows, shape.num_kv_heads, CAPACITY, shape.head_dim), dtype=dtype)
    layers = [[*weights, keys.clone(), keys.clone()] for weights in parts.layers[: shape.layers_per_call]]
    angles = torch.zeros((num_rows, shape.head_dim), dtype=dtype)
    positions = torch.full((num_rows,), LENGTH - 1)
    inputs = (
        *(states_of(shape, num_rows), angles, angles.clone(), positions, torch.arange(LENGTH)),
        *(torch.arange(num_rows), layers),
    )
    capacity = torch.export.Dim("capacity", min=3, max=MOST_TOKENS)
    length = torch.export.Dim("length", min=2, max=MOST_TOKENS - 1)
    cache = {2: capacity} if num_rows == 1 else {0: torch.export.Dim("cache_rows", min=2, max=MOST_ROWS), 2: capacity}
    sizes: list[Any] = [[*[None] * (len(layer) - 2), cache, cache] for layer in layers]
    return Span(shape, activation, num_rows), inputs, (*[None] * 4, {0: length}, None, sizes)


def head_of(parts: Parts, num_rows: int) -> tuple[nn.Module, tuple[Any, ...], Any]:
    """The output layer with inputs to trace it with; none of their sizes changes."""
    return Head(parts.shape), (states_of(parts.shape, num_rows), parts.head), (None, [None] * len(parts.head))


def states_of(shape: Shape, num_rows: int) -> torch.Tensor:
    """Hidden states of a token of each row."""
    return torch.zeros((num_rows, shape.hidden_size), dtype=getattr(torch, shape.dtype))


def compiled(module: nn.Module, inputs: tuple[Any, ...], sizes: Any, command: str) -> Path:
    """The shared library of ``module``, made by the compiler ``command``."""
    # Imported here: inductor takes a second, and a server that only loads packages never needs it.
    from torch._inductor import aot_compile

    options = {**OPTIONS, "cpp.threads": max(torch.get_num_threads(), 2), "cpp.cxx": (None, command)}
    with warnings.catch_warnings():
        # torch 2.13 about its own code: every shape tree that it copies.
        warnings.simplefilter("ignore", FutureWarning)
        traced = torch.export.export(module.eval(), inputs, dynamic_shapes=sizes, strict=False)
        files = aot_compile(traced.module(), inputs, options=options)
    if not isinstance(files, list):
        raise PackageError("this version of torch gives no list of files")
    [library] = [Path(one) for one in files if isinstance(one, str) and one.endswith(".so")]
    return library
