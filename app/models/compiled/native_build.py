"""Has the C++ compiler make the library of ``native_pass.cpp`` for a model's shape: a few seconds."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch

from app.models.compiled.package_facts import CPU_INFO, processor
from app.models.compiled.package_store import PackageError
from app.models.compiled.steps.step_shape import Shape
from app.models.weights.fused.experts import CLAMPED

HEADERS = Path(__file__).with_name("native")
SOURCE = HEADERS / "native_pass.cpp"
LIBRARY = "pass.so"
# A product and a sum in one instruction; nothing else is computed in another order than it is written.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared")
KINDS = {"float32": "Float32", "bfloat16": "BFloat16", "float16": "Float16"}
NEEDED = {"avx2", "fma", "f16c"}
# As the C++ numbers them.
ACTIVATIONS = {"SiLU()": 0, "SiLUActivation()": 0, "GELUTanh()": 1, CLAMPED: 2}
# Forms of the layers' weights and of the output layer's.
PAIRS = {("plain", "plain"), ("int8", "int8"), ("int4", "int8")}
# Outputs that torch packs side by side.
NIBBLE_BLOCK = 32
MAX_S = 600


def suits_processor() -> bool:
    """Whether the C++ is written for this machine's processor."""
    return platform.machine() == "x86_64" and not NEEDED - set(processor(CPU_INFO.read_text()).split())


def kinds_of(shape: Shape) -> tuple[str, str, str] | None:
    """The C++'s names for the weights of layers, of the output layer and for the cache of a model.

    None where it has none, or is not written for.
    """
    if not suits_processor():
        return None
    forms = {form.kind for form in shape.forms}
    if len(forms) != 1 or activation_of(shape) is None or shape.dtype not in KINDS:
        return None
    form = forms.pop()
    if (form, shape.head_form.kind) not in PAIRS or (form == "int4" and not packs_32(shape)):
        return None
    weights = {"plain": KINDS[shape.dtype], "int8": "Int8", "int4": "Int4"}
    return weights[form], weights[shape.head_form.kind], KINDS[shape.dtype]


def activation_of(shape: Shape) -> int | None:
    """The C++'s number for what activates a gate; None where it has none."""
    return ACTIVATIONS.get(shape.activation.rsplit(".", 1)[-1])


def packs_32(shape: Shape) -> bool:
    """Whether torch packs codes of 4 bits here as the C++ reads them, and gate and up begin with a block each."""
    return torch.backends.cpu.get_cpu_capability() == "AVX2" and shape.intermediate_size % NIBBLE_BLOCK == 0


def compile_pass(shape: Shape, compiler: str, folder: Path) -> Path | None:
    """The library, in ``folder``; None where there is no pass for ``shape``. Raises ``PackageError``."""
    kinds = kinds_of(shape)
    if kinds is None:
        return None
    names = [f"-D{name}={kind}" for name, kind in zip(("WEIGHT", "HEAD", "CACHE"), kinds, strict=True)]
    return compile_library(SOURCE, compiler, folder, names)


def compile_library(source: Path, compiler: str, folder: Path, names: Sequence[str] = ()) -> Path:
    """The library of ``source``, in ``folder``. Raises ``PackageError``."""
    library = folder / LIBRARY
    command = [compiler, *FLAGS, f"-I{HEADERS}", *names, str(source), "-o", str(library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(f"the pass could not be compiled: {error}") from None
    if done.returncode != 0:
        found = next((line for line in done.stderr.splitlines() if "error" in line), f"code {done.returncode}")
        raise PackageError(f"the pass could not be compiled: {found}")
    return library
