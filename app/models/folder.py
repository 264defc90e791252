"""What can be told of a model folder from its files alone: what is missing, cut short or of the wrong kind.

Reads names, sizes and headers, never the weights. Raises ``ModelLoadError`` with one line that names
the file. No torch; any thread.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from app.core.errors import ModelLoadError

INDEX = "model.safetensors.index.json"
# safetensors' own bound on its header (safetensors 0.8, MAX_HEADER_SIZE).
MAX_HEADER_BYTES = 100_000_000
LFS_POINTER = b"version https://git-lfs"
SENTENCEPIECE_NAMES = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "spm.model")


def check_folder(source: str) -> None:
    """Name what is missing or broken when ``source`` is a path; hub ids are left to transformers."""
    folder = Path(source)
    if not folder.exists():
        if source.startswith(("/", ".", "~")) or source.count("/") != 1:
            raise ModelLoadError(f"the model folder {source} does not exist")
        return
    if not (folder / "config.json").is_file():
        raise ModelLoadError(f"the model folder {source} has no config.json")
    for path in weight_files(folder):
        check_weight_file(path)
    check_sentencepiece(folder)


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files that ``from_pretrained`` will read: one, or the shards that the index names."""
    if (index := folder / INDEX).is_file() and not (folder / "model.safetensors").is_file():
        return _shards(index)
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        pickled = sorted(path.name for path in folder.glob("*.bin"))
        hint = f"; {pickled[0]} is a pickle file, which is never loaded" if pickled else ""
        raise ModelLoadError(f"the model folder {folder} has no *.safetensors weights{hint}")
    return found


def _shards(index: Path) -> list[Path]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"{index} is not an index of weights") from error
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        count = f"{len(missing)} of {len(names)} weight files"
        raise ModelLoadError(f"the model folder {index.parent} lacks {count}: {', '.join(missing)}")
    return [index.parent / name for name in names]


def check_weight_file(path: Path) -> None:
    """Compare a safetensors file with its own header (format: 8 bytes of length, JSON, then the data)."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
        if start == LFS_POINTER:
            raise ModelLoadError(f"the weights {path} are a Git LFS pointer: fetch the file itself (git lfs pull)")
        length = int.from_bytes(start[:8], "little")
        if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
            raise ModelLoadError(f"the weights {path} are not a safetensors file, or only the start of one")
        file.seek(8)
        expected = 8 + length + _data_bytes(path, file.read(length))
    if size != expected:
        what = "cut short" if size < expected else "too long"
        raise ModelLoadError(f"the weights {path} are {what}: {size} bytes, the header speaks of {expected}")


def _data_bytes(path: Path, header: bytes) -> int:
    """Bytes of data that the header speaks of."""
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        return max((int(entry["data_offsets"][1]) for entry in entries.values()), default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise ModelLoadError(f"the weights {path} have a broken header") from error


def check_sentencepiece(folder: Path) -> None:
    """Say which packages are missing: transformers takes the file for another kind and names another one."""
    files = [name for name in SENTENCEPIECE_NAMES if (folder / name).is_file()]
    if not files or (folder / "tokenizer.json").is_file():
        return
    missing = [name for name in ("sentencepiece", "google.protobuf") if not is_installed(name)]
    if missing:
        raise ModelLoadError(
            f"the tokenizer of {folder} is a sentencepiece model ({files[0]}) and {missing[0]} is not installed: "
            "pip install 'forklift-serve[sentencepiece]'"
        )


def is_installed(module: str) -> bool:
    """Whether ``module`` can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
