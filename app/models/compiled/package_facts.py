"""What a package was made for, as plain values: it is used only where each of them is the same.

Knows no tensors; torch is asked for its version only. Any process.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import Field, asdict
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeAlias

import torch

# JSON: what goes into a package's file must come out of it equal.
Facts: TypeAlias = dict[str, str]
# In words, for the line that says why a package is not used.
NAMES = {
    "torch": "another version of torch",
    "code": "another version of Forklift",
    "processor": "another processor",
}
CPU_INFO = Path("/proc/cpuinfo")
SOURCES = (".cpp", ".h")
ENCODER_HEADERS = Path(__file__).parents[1] / "encoders" / "native"
# What decides on the code of a package, and on the order of its inputs.
CODE = (
    *("steps/step_graph.py", "steps/step_shape.py", "products.py", "inductor.py"),
    *("native_build.py", "native_pass.py", "native_tables.py"),
    *sorted(f"native/{file.name}" for file in Path(__file__).with_name("native").iterdir() if file.suffix in SOURCES),
    *("../encoders/native_encoder.cpp", "../encoders/native_encoder.py"),
    *sorted(f"../encoders/native/{file.name}" for file in ENCODER_HEADERS.iterdir() if file.suffix in SOURCES),
)


class AnyShape(Protocol):
    """Any dataclass: all that code depends on of the models that it is for."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def facts_of(shape: AnyShape) -> Facts:
    """What a package for ``shape`` depends on, here and now."""
    return {
        "shape": json.dumps(asdict(shape), sort_keys=True),
        "torch": torch.__version__,
        "code": digest(b"".join((Path(__file__).parent / name).read_bytes() for name in CODE)),
        "processor": processor(CPU_INFO.read_text()),
    }


def key_of(facts: Facts) -> str:
    """A name for a package: the same for the same facts, the part before the dash for the same shape."""
    return f"{digest(facts['shape'].encode())}-{digest(json.dumps(facts, sort_keys=True).encode())}"


def difference(found: Facts, wanted: Facts) -> str:
    """In words, the first fact that differs."""
    names = [words for name, words in NAMES.items() if found.get(name) != wanted[name]]
    return names[0] if names else "another model"


def processor(cpu_info: str) -> str:
    """The features of the first processor, as Linux lists them: a package uses all of them."""
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return " ".join(sorted(value.split()))
    return "unknown"


def digest(content: bytes) -> str:
    """A short name for ``content``."""
    return hashlib.sha256(content).hexdigest()[:16]
