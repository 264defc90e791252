"""Reads the JSON files of a model folder: whatever is wrong with one is a single line that names it.

A folder is a stranger's: a file may be a pipe, a device, unreadable, endless, no JSON, or JSON nested
so deeply that every library which walks it would fail. No torch; any thread.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.core.errors import ModelLoadError
from app.core.system.small_files import read_small_file, why_unreadable

MAX_CONFIG_BYTES = 10_000_000
# Tokenizers of 260,000 tokens take 35 MB.
MAX_TOKENIZER_BYTES = 300_000_000
# Configurations are some five deep; libraries walk them by recursion.
MAX_DEPTH = 100
LFS_POINTER = b"version https://git-lfs"


def read_object(path: Path, max_bytes: int = MAX_CONFIG_BYTES) -> dict[str, Any]:
    """The JSON object in the file at ``path``. Raises ``ModelLoadError``."""
    content = parse_json(path, read_bytes(path, max_bytes))
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds no JSON object")
    return content


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """The content of a regular file. Raises ``ModelLoadError``."""
    try:
        return read_small_file(path, max_bytes)
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> ModelLoadError:
    """The one line for a file that the system does not let us read."""
    return ModelLoadError(f"{path} cannot be read: {why_unreadable(path, error)}")


def parse_json(path: Path, content: bytes) -> Any:
    """What ``content``, of the file at ``path``, says. Raises ``ModelLoadError``."""
    if not content.strip():
        raise ModelLoadError(f"{path} is not valid JSON: it is empty")
    if content.startswith(LFS_POINTER):
        raise ModelLoadError(f"{path} is a Git LFS pointer: fetch the file itself (git lfs pull)")
    try:
        return json.loads(content)
    except RecursionError:
        raise ModelLoadError(f"{path} is nested too deeply") from None
    except ValueError as error:
        raise ModelLoadError(f"{path} is not valid JSON: {str(error)[:200]}") from None


def require_shallow(path: Path, content: object) -> None:
    """Raise ``ModelLoadError`` where ``content`` is nested deeper than ``MAX_DEPTH``."""
    level: list[object] = [content]
    for _ in range(MAX_DEPTH):
        level = [child for parent in level for child in _children(parent)]
        if not level:
            return
    raise ModelLoadError(f"{path} is nested too deeply")


def _children(parent: object) -> Iterable[object]:
    if isinstance(parent, dict):
        return parent.values()
    return parent if isinstance(parent, list) else ()
