"""The tensors of a folder's safetensors files, each read when it is asked for. Threads of a load, inference thread."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from app.core.errors import ModelLoadError
from app.models.folder.headers import read_entries
from app.models.folder.model_folder import weight_files


class TensorFile:
    """A file, opened once; whoever copies what refers to it refers to the same one."""

    def __init__(self, path: Path):
        self.path = path

    def __deepcopy__(self, _memo: dict[int, Any]) -> TensorFile:
        return self

    @cached_property
    def opened(self) -> Any:
        """safetensors' own handle; it maps the file."""
        return safe_open(str(self.path), framework="pt")


@dataclass(frozen=True)
class Stored:
    """A tensor that lies in a file; ``dtype`` by safetensors' name."""

    file: TensorFile
    name: str
    dtype: str
    shape: tuple[int, ...]

    def read(self, *part: slice) -> torch.Tensor:
        """Its values, or those of a part of it. Raises ``ModelLoadError``."""
        found: torch.Tensor = self.opened[part] if part else self.file.opened.get_tensor(self.name)
        return found

    @property
    def opened(self) -> Any:
        """What gives the values where it is indexed, and is no tensor before."""
        return self.file.opened.get_slice(self.name)


def read_stored(folder: Path) -> dict[str, Stored]:
    """All tensors of ``folder`` by their names. Raises ``ModelLoadError``, also where one is there twice.

    Beside a ``model.safetensors`` other files are other things: transformers does not read them.
    """
    found: dict[str, Stored] = {}
    whole = folder / "model.safetensors"
    for path in [whole] if whole.exists() else weight_files(folder):
        file = TensorFile(path)
        for name, entry in read_entries(path).items():
            if name in found:
                other = found[name].file.path.name
                raise ModelLoadError(f"the weights of {folder} hold {name[:100]} twice: in {other} and {path.name}")
            found[name] = Stored(file, name, entry["dtype"], tuple(entry["shape"]))
    return found
