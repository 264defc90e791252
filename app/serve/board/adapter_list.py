"""Which LoRA adapters are in service, in memory that all processes of one server share.

Made by the master before it forks, so that workers that start later see what was changed meanwhile. A change writes the
whole list anew under the board's lock; readers look at a number first, and parse only what is new.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import weakref
from collections.abc import Callable, Iterable

from app.core.errors import InvalidParameterError
from app.core.work.adapters import AdapterName
from app.serve.board import shared_files
from app.serve.board.slot_board import SlotBoard

MAX_BYTES = 1 << 18

Adapters = dict[str, dict[str, AdapterName]]
"""Adapters by the name of their model, then by their own."""


class _Header(ctypes.Structure):
    generation: int
    num_bytes: int
    num_versions: int

    _fields_ = [("generation", ctypes.c_uint64), ("num_bytes", ctypes.c_uint64), ("num_versions", ctypes.c_uint64)]


class AdapterList:
    """The list; ``board`` has the lock. ``first``: what is in service at the start, as model, name and folder."""

    def __init__(self, board: SlotBoard, first: Iterable[tuple[str, str, str]] = ()):
        self._board = board
        size_bytes = ctypes.sizeof(_Header) + MAX_BYTES
        self._fd = shared_files.make_in_first(
            lambda folder: shared_files.anonymous_file(folder, size_bytes), "the list of adapters"
        )
        weakref.finalize(self, os.close, self._fd)
        self._shared = mmap.mmap(self._fd, size_bytes)
        self._header = _Header.from_buffer(self._shared)
        self._seen = (0, Adapters())
        for model, name, folder in first:
            self.add(model, name, folder)

    @property
    def generation(self) -> int:
        """Differs whenever the list does."""
        return int(self._header.generation)

    def read(self) -> Adapters:
        """What is in service now; not to be changed."""
        if self._seen[0] != self.generation:
            with self._board.locked():
                self._seen = (self.generation, self._parsed())
        return self._seen[1]

    def add(self, model: str, name: str, folder: str) -> None:
        """Put an adapter into service, or its newer version. Raises ``InvalidParameterError`` without room."""

        def put(found: Adapters, version: int) -> None:
            found.setdefault(model, {})[name] = AdapterName(name, folder, version)

        self._change(put)

    def remove(self, model: str, name: str) -> None:
        """Take an adapter out of service; requests that run go on."""
        self._change(lambda found, _version: found.get(model, {}).pop(name, None))

    def _change(self, change: Callable[[Adapters, int], object]) -> None:
        with self._board.locked():
            found = self._parsed()
            change(found, int(self._header.num_versions))
            told = {
                model: {one.name: [one.folder, one.version] for one in adapters.values()}
                for model, adapters in found.items()
            }
            content = json.dumps(told).encode()
            if len(content) > MAX_BYTES:
                raise InvalidParameterError("there are too many adapters in service", param="lora_name")
            self._shared[ctypes.sizeof(_Header) : ctypes.sizeof(_Header) + len(content)] = content
            self._header.num_bytes = len(content)
            self._header.num_versions += 1
            self._header.generation += 1

    def _parsed(self) -> Adapters:
        """What lies there; the caller is inside ``SlotBoard.locked``."""
        start = ctypes.sizeof(_Header)
        content = bytes(self._shared[start : start + int(self._header.num_bytes)])
        told = json.loads(content) if content else {}
        return {
            model: {name: AdapterName(name, folder, version) for name, (folder, version) in adapters.items()}
            for model, adapters in told.items()
        }
