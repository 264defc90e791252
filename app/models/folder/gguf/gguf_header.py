"""Headers of GGUF files (ggml's specification, versions 2 and 3): what a file holds, told before anything is loaded.

A header is a stranger's: every length and count is bounded before anything is made of it, since the libraries that
read the file afterwards make an object of each entry. No torch; any thread.
"""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass
from pathlib import Path

from app.core.errors import ModelLoadError
from app.core.system.small_files import open_regular
from app.models.folder.gguf.gguf_kinds import KINDS, Kind
from app.models.folder.json_files import LFS_POINTER, unreadable

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_HEADER_BYTES = 64 * 2**20
MAX_TENSORS = 200_000
MAX_KEYS = 20_000
# Entries of all arrays together: vocabularies of 260,000 tokens have 1.3 million, with scores, types and merges.
MAX_ENTRIES = 4_000_000
MAX_DIMENSIONS = 4
MAX_ALIGNMENT = 2**20
STRING, ARRAY = 8, 9
# struct's letters for the metadata's types of one number.
NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}


@dataclass(frozen=True)
class Tensor:
    """``shape`` as torch has it; ``start`` is a place in the file."""

    name: str
    shape: tuple[int, ...]
    kind: Kind
    start: int

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_values // self.kind.block_values * self.kind.block_bytes


@dataclass(frozen=True)
class GgufHeader:
    """``metadata`` has numbers and texts, of arrays only how many entries they have."""

    path: Path
    metadata: dict[str, str | int | float]
    tensors: dict[str, Tensor]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def own(self, key: str) -> str | int | float | None:
        """A value of the architecture's own."""
        return self.metadata.get(f"{self.architecture}.{key}")


class _CutError(Exception):
    """The file ends, or is too long, within its header."""


def read_header(path: Path) -> GgufHeader:
    """What the file at ``path`` holds; every tensor lies within it. Raises ``ModelLoadError`` with one line."""
    try:
        told = path.stat()
    except OSError as error:
        raise unreadable(path, error) from None
    return _read(path, told.st_size, told.st_mtime_ns, told.st_ino)


@functools.lru_cache(maxsize=8)
def _read(path: Path, size: int, _changed_ns: int, _inode: int) -> GgufHeader:
    try:
        with open_regular(path) as file:
            content = file.read(min(size, MAX_HEADER_BYTES))
    except OSError as error:
        raise unreadable(path, error) from None
    _check_start(path, content)
    try:
        header = _Walk(content).header(path)
    except (_CutError, struct.error):
        what = "cut short within its header" if size <= MAX_HEADER_BYTES else "no GGUF file that can be read"
        raise ModelLoadError(f"the weights {path} are {what}: {size} bytes") from None
    except (ValueError, OverflowError) as error:
        raise ModelLoadError(f"the weights {path} have a broken header: {str(error)[:200]}") from None
    _check_ends(header, size)
    return header


def _check_start(path: Path, content: bytes) -> None:
    if content.startswith(LFS_POINTER):
        raise ModelLoadError(f"the weights {path} are a Git LFS pointer: fetch the file itself (git lfs pull)")
    if not content.startswith(MAGIC) or len(content) < 24:
        raise ModelLoadError(f"the weights {path} are not a GGUF file, or only the start of one")
    version = int.from_bytes(content[4:8], "little")
    if version not in VERSIONS:
        is_big = int.from_bytes(content[4:8], "big") in VERSIONS
        what = "is written for big-endian machines" if is_big else f"is of version {version}, not 2 or 3"
        raise ModelLoadError(f"the weights {path}: this GGUF file {what}")


def _check_ends(header: GgufHeader, size: int) -> None:
    end = max((tensor.start + tensor.num_bytes for tensor in header.tensors.values()), default=0)
    if end > size:
        raise ModelLoadError(f"the weights {header.path} are cut short: {size} bytes, the header speaks of {end}")


class _Walk:
    """One way through ``content``, the start of a file."""

    def __init__(self, content: bytes):
        self._content = content
        self._at = len(MAGIC) + 4
        self._num_entries = 0

    def header(self, path: Path) -> GgufHeader:
        num_tensors, num_keys = self._number("Q"), self._number("Q")
        if num_tensors > MAX_TENSORS or num_keys > MAX_KEYS:
            raise ValueError(f"{num_tensors} tensors and {num_keys} keys, {MAX_TENSORS} and {MAX_KEYS} at most")
        metadata = {self._text(): self._value(int(self._number("I"))) for _ in range(int(num_keys))}
        entries = [self._entry() for _ in range(int(num_tensors))]
        step = metadata.get("general.alignment", 32)
        if not isinstance(step, int) or not 1 <= step <= MAX_ALIGNMENT:
            raise ValueError(f"general.alignment is {step!r}")
        first = -(-self._at // step) * step
        tensors = {name: Tensor(name, shape, kind, first + offset) for name, shape, kind, offset in entries}
        if len(tensors) < len(entries):
            raise ValueError("two tensors of one name")
        return GgufHeader(path, metadata, tensors)

    def _entry(self) -> tuple[str, tuple[int, ...], Kind, int]:
        name, num_dimensions = self._text(), self._number("I")
        if not 1 <= num_dimensions <= MAX_DIMENSIONS:
            raise ValueError(f"{name[:100]} has {num_dimensions} dimensions")
        # The fastest one comes first.
        shape = tuple(int(self._number("Q")) for _ in range(int(num_dimensions)))[::-1]
        number, offset = self._number("I"), int(self._number("Q"))
        kind = KINDS.get(int(number))
        if kind is None:
            raise ValueError(f"{name[:100]} is of ggml's type {number}, which is not known here")
        if math.prod(shape) >= 2**48 or offset >= 2**48 or shape[-1] % kind.block_values:
            raise ValueError(f"{name[:100]} is {' x '.join(map(str, shape))} of {kind.name}")
        return name, shape, kind, offset

    def _value(self, kind: int) -> str | int | float:
        if kind == STRING:
            return self._text()
        if kind == ARRAY:
            return self._skip_array(int(self._number("I")), int(self._number("Q")))
        if kind not in NUMBERS:
            raise ValueError(f"a value of type {kind}")
        return self._number(NUMBERS[kind])

    def _skip_array(self, kind: int, count: int) -> int:
        self._num_entries += count
        if self._num_entries > MAX_ENTRIES:
            raise ValueError(f"arrays of {self._num_entries} entries, {MAX_ENTRIES} at most")
        if kind in NUMBERS:
            self._skip(count * struct.calcsize(NUMBERS[kind]))
        elif kind == STRING:
            for _ in range(count):
                self._skip(int(self._number("Q")))
        else:
            raise ValueError(f"an array of type {kind}")
        return count

    def _number(self, letter: str) -> int | float:
        value: int | float
        (value,) = struct.unpack_from(f"<{letter}", self._content, self._at)
        self._at += struct.calcsize(letter)
        return value

    def _text(self) -> str:
        start = self._at + 8
        self._skip(int(self._number("Q")))
        return self._content[start : self._at].decode("utf-8", errors="replace")

    def _skip(self, count: int) -> None:
        self._at += count
        if self._at > len(self._content):
            raise _CutError
