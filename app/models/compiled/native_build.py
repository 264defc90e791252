"""Has the C++ compiler make the library of ``native_pass.cpp`` for a model's shape: a few seconds."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from app.models.compiled.package_facts import CPU_INFO, processor
from app.models.compiled.package_store import PackageError
from app.models.compiled.step_graph import Shape

SOURCE = Path(__file__).with_name("native") / "native_pass.cpp"
LIBRARY = "pass.so"
# A product and a sum in one instruction; nothing else is computed in another order than it is written.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-shared")
KINDS = {"float32": "Float32", "bfloat16": "BFloat16", "float16": "Float16"}
NEEDED = {"avx2", "fma", "f16c"}
ACTIVATIONS = ("SiLU()", "SiLUActivation()")
MAX_S = 600


def suits_processor() -> bool:
    """Whether the C++ is written for this machine's processor."""
    return platform.machine() == "x86_64" and not NEEDED - set(processor(CPU_INFO.read_text()).split())


def kinds_of(shape: Shape) -> tuple[str, str] | None:
    """The C++'s names for the weights and for the cache of a model; None where it has none, or is not written for."""
    if not suits_processor():
        return None
    forms = {form.kind for form in (*shape.forms, shape.head_form)}
    if len(forms) != 1 or not shape.activation.endswith(ACTIVATIONS) or shape.dtype not in KINDS:
        return None
    weights = {"plain": KINDS[shape.dtype], "int8": "Int8"}.get(forms.pop())
    return None if weights is None else (weights, KINDS[shape.dtype])


def compile_pass(shape: Shape, compiler: str, folder: Path) -> Path | None:
    """The library, in ``folder``; None where there is no pass for ``shape``. Raises ``PackageError``."""
    kinds = kinds_of(shape)
    if kinds is None:
        return None
    names = [f"-D{name}={kind}" for name, kind in zip(("WEIGHT", "CACHE"), kinds, strict=True)]
    return compile_library(SOURCE, compiler, folder, names)


def compile_library(source: Path, compiler: str, folder: Path, names: Sequence[str] = ()) -> Path:
    """The library of ``source``, in ``folder``. Raises ``PackageError``."""
    library = folder / LIBRARY
    command = [compiler, *FLAGS, *names, str(source), "-o", str(library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MAX_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PackageError(f"the pass could not be compiled: {error}") from None
    if done.returncode != 0:
        found = next((line for line in done.stderr.splitlines() if "error" in line), f"code {done.returncode}")
        raise PackageError(f"the pass could not be compiled: {found}")
    return library
