"""Which GGUF file a path means, and whether it can be served, from its name and header alone.

Raises ``ModelLoadError`` with one line. No torch; the master looks before it forks, a worker before each load.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from app.core.errors import ModelLoadError
from app.models.folder.gguf.gguf_header import GgufHeader, read_header

SUFFIX = ".gguf"
# A folder is looked through so far.
MAX_LISTED = 2000
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)
# What lies beside models of texts: readers of images, and tables of importances.
BESIDE = re.compile(r"mmproj|imatrix", re.IGNORECASE)
LAYER = re.compile(r"blk\.(\d{1,6})\.")
NUM_LISTED = 3
INSTALL = "pip install 'forklift-serve[gguf]'"


def gguf_file(source: str) -> Path | None:
    """The file that ``source`` means: itself, or the one in a folder without a model of another form; else None.

    Raises ``ModelLoadError`` where a folder has several to choose from.
    """
    path = Path(source)
    try:
        if path.suffix.lower() == SUFFIX and path.exists() and not path.is_dir():
            return path
        names = sorted(entry.name for entry, _ in zip(os.scandir(path), range(MAX_LISTED), strict=False))
    except OSError:
        # Whatever is wrong with it is told where folders are checked.
        return None
    found = [name for name in names if name.lower().endswith(SUFFIX) and not BESIDE.search(name)]
    if not found or any(name.endswith(".safetensors") for name in names):
        return None
    if len({PART.sub("", name) for name in found}) > 1:
        raise ModelLoadError(
            f"the model folder {source} holds {len(found)} GGUF files: MODEL names one, {listed(found)}"
        )
    return path / found[0]


def listed(names: list[str]) -> str:
    """The first of ``names``."""
    return ", ".join(names[:NUM_LISTED]) + (", ..." if len(names) > NUM_LISTED else "")


def check_gguf(path: Path, *, is_installed: bool) -> GgufHeader:
    """The header of a file that can be served; ``is_installed``: the package that reads it is. Raises."""
    header = read_header(path)
    _check_whole(header)
    _check_kind(header)
    _check_fit(header)
    if not is_installed:
        raise ModelLoadError(
            f"{path} is a GGUF file, which the package gguf reads, and that is not installed: {INSTALL}"
        )
    return header


def _check_whole(header: GgufHeader) -> None:
    """The file is not one of several parts."""
    part, told = PART.search(header.path.name), header.metadata.get("split.count")
    if (isinstance(told, int) and told > 1) or (part and int(part[2]) > 1):
        count = told or int(part[2] if part else 0)
        raise ModelLoadError(
            f"{header.path} is one of {count} parts of a GGUF file: join them with llama-gguf-split --merge first"
        )


def _check_kind(header: GgufHeader) -> None:
    """The file is a language model with its tokenizer."""
    kind = header.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelLoadError(f"{header.path} is a GGUF file of type {str(kind)[:40]!r}, not of a model")
    if not header.architecture:
        raise ModelLoadError(f"{header.path} names no general.architecture")
    if not header.metadata.get("tokenizer.ggml.tokens"):
        raise ModelLoadError(f"{header.path} (architecture {header.architecture[:40]!r}) holds no tokenizer")
    if "token_embd.weight" not in header.tensors:
        raise ModelLoadError(f"{header.path} (architecture {header.architecture[:40]!r}) has no token_embd.weight")


def _check_fit(header: GgufHeader) -> None:
    """The weights can be those that the metadata speak of: what is built from them is as large as the file at most."""
    rows, width = (*header.tensors["token_embd.weight"].shape, 0)[:2]
    count = header.own("block_count")
    layers = {int(match[1]) for match in map(LAYER.match, header.tensors) if match}
    if not isinstance(count, int) or count != len(layers) or layers != set(range(count)):
        raise _unlike(header, f"block_count is {count}, its tensors are of {len(layers)} layers")
    if (told := header.own("embedding_length")) != width:
        raise _unlike(header, f"embedding_length is {told}, token_embd.weight is {rows} x {width}")
    if (num_tokens := header.metadata["tokenizer.ggml.tokens"]) != rows:
        raise _unlike(header, f"its tokenizer has {num_tokens} tokens, token_embd.weight is {rows} x {width}")


def _unlike(header: GgufHeader, what: str) -> ModelLoadError:
    return ModelLoadError(f"the weights of {header.path} do not fit its metadata: {what}")
