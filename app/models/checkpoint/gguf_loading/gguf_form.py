"""The form that a GGUF file's weights get here: the nearest of our own ones on the CPU, plain floats elsewhere.

Told from the header alone. Never float32 without being asked: a file of blocks that is served plain is bfloat16.
Inference thread only.
"""

from __future__ import annotations

import re
from collections import Counter

import torch

from app.core.settings import Settings
from app.models.checkpoint.devices import choose_dtype
from app.models.folder.gguf.gguf_header import GgufHeader
from app.models.folder.gguf.gguf_kinds import FOUR_BITS

FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16}
LAYER = re.compile(r"blk\.\d+\.")


def nearest_form(header: GgufHeader) -> str:
    """``file`` where layers are in four bits on a line, ``int8`` where in other blocks, else ``none``."""
    kinds = {name for name, tensor in kinds_of_layers(header).items() if tensor}
    if kinds & set(FOUR_BITS):
        return "file"
    return "int8" if kinds - {"F32", "F64", *FLOATS} else "none"


def kinds_of_layers(header: GgufHeader) -> Counter[str]:
    """How many weights of the layers' matrices are of each of ggml's types."""
    found: Counter[str] = Counter()
    for name, tensor in header.tensors.items():
        if LAYER.match(name) and len(tensor.shape) > 1:
            found[tensor.kind.name] += tensor.num_values
    return found


def dtype_of(header: GgufHeader, settings: Settings) -> torch.dtype:
    """The dtype that transformers is to make of the file: the one asked for, or the nearest to what it holds."""
    wanted = choose_dtype(settings)
    if wanted != "auto":
        return wanted
    kinds = kinds_of_layers(header) or Counter({"F32": 1})
    most = kinds.most_common(1)[0][0]
    return torch.float32 if most in ("F32", "F64") else FLOATS.get(most, torch.bfloat16)
