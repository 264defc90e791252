"""Headers of safetensors files (format: 8 bytes of length, JSON, then the data). No torch; any thread.

The only reader of them here: the check of a folder and the prediction of memory see the same entries.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.system.small_files import open_regular
from app.models.folder.json_files import LFS_POINTER, parse_json, unreadable

# safetensors allows 100 MB. The largest published models have some 100,000 tensors, over many files.
MAX_HEADER_BYTES = 50_000_000
MAX_TENSORS = 200_000

Entry = dict[str, Any]


def read_entries(path: Path) -> dict[str, Entry]:
    """Dtype, shape and place of each tensor by its name. Raises ``ModelLoadError``."""
    return _read(path)[1]


def check_weight_file(path: Path) -> None:
    """Compare the file with its own header. Raises ``ModelLoadError``."""
    size, entries, data_start = _read(path)
    expected = data_start + max((entry["data_offsets"][1] for entry in entries.values()), default=0)
    if size != expected:
        what = "cut short" if size < expected else "too long"
        raise ModelLoadError(f"the weights {path} are {what}: {size} bytes, the header speaks of {expected}")


def _read(path: Path) -> tuple[int, dict[str, Entry], int]:
    """Bytes of the file, its entries, and where the data begin."""
    try:
        size, content = _content(path)
    except OSError as error:
        raise unreadable(path, error) from None
    # Before anything is made of them: parsing takes a hundred times as long as counting.
    if (num_tensors := content.count(b'"data_offsets"')) > MAX_TENSORS:
        raise ModelLoadError(f"the weights {path} hold {num_tensors} tensors, of {MAX_TENSORS} at most")
    try:
        header = parse_json(path, content)
    except ModelLoadError as error:
        raise _broken(path) from error
    if not isinstance(header, dict):
        raise _broken(path)
    header.pop("__metadata__", None)
    if not all(map(_is_entry, header.values())):
        raise _broken(path)
    return size, header, 8 + len(content)


def _content(path: Path) -> tuple[int, bytes]:
    """Bytes of the file, and its header's text. Raises ``OSError`` or ``ModelLoadError``."""
    with open_regular(path) as file:
        size = file.seek(0, 2)
        file.seek(0)
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise ModelLoadError(f"the weights {path} are a Git LFS pointer: fetch the file itself (git lfs pull)")
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= size - 8:
            raise ModelLoadError(f"the weights {path} are not a safetensors file, or only the start of one")
        if length > MAX_HEADER_BYTES:
            raise ModelLoadError(f"the weights {path} have a header of {length} bytes, of {MAX_HEADER_BYTES} at most")
        file.seek(8)
        return size, file.read(length)


def _is_entry(entry: object) -> bool:
    if not isinstance(entry, dict):
        return False
    offsets, shape = entry.get("data_offsets"), entry.get("shape")
    return (
        isinstance(entry.get("dtype"), str)
        and isinstance(offsets, list)
        and len(offsets) == 2
        and all(type(one) is int for one in offsets)
        and 0 <= offsets[0] <= offsets[1] < 2**63
        and isinstance(shape, list)
        and all(type(size) is int and 0 <= size < 2**63 for size in shape)
    )


def _broken(path: Path) -> ModelLoadError:
    return ModelLoadError(f"the weights {path} have a broken header")
