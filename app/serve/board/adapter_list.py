"""Which LoRA adapters are in service, in memory that all processes of one server share.

Made by the master before it forks, so that workers that start later see what was changed meanwhile. A change writes the
whole list anew under the board's lock, beside the one that holds, and then says which of the two does: whoever dies in
the middle leaves the old one. Readers look at a number first, parse only what is new, and wait for nobody.
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

LEAST_BYTES = 1 << 18
# By how much the list may grow beyond what is in service at the start.
GROWTH = 4

Adapters = dict[str, dict[str, AdapterName]]
"""Adapters by the name of their model, then by their own."""


class _Header(ctypes.Structure):
    """``generation`` says which of the two lists holds, too: that of its last bit."""

    generation: int
    num_bytes: ctypes.Array[ctypes.c_uint64]

    _fields_ = [("generation", ctypes.c_uint64), ("num_bytes", ctypes.c_uint64 * 2)]


class AdapterList:
    """The list; ``board`` has the lock. ``first``: what is in service at the start, by the names of models."""

    def __init__(self, board: SlotBoard, first: Iterable[tuple[str, AdapterName]] = ()):
        self._board = board
        at_start = Adapters()
        for model, adapter in first:
            at_start.setdefault(model, {})[adapter.name] = adapter
        self._max_bytes = max(LEAST_BYTES, GROWTH * len(_packed(at_start)))
        size_bytes = ctypes.sizeof(_Header) + 2 * self._max_bytes
        self._fd = shared_files.make_in_first(
            lambda folder: shared_files.anonymous_file(folder, size_bytes), "the list of adapters"
        )
        weakref.finalize(self, os.close, self._fd)
        self._shared = mmap.mmap(self._fd, size_bytes)
        self._header = _Header.from_buffer(self._shared)
        self._seen = (0, Adapters())
        self._change(lambda found, _version: found.update(at_start))

    @property
    def generation(self) -> int:
        """Differs whenever the list does."""
        return int(self._header.generation)

    def read(self) -> Adapters:
        """What is in service now; not to be changed."""
        if self._seen[0] != self.generation:
            self._seen = self._current()
        return self._seen[1]

    def add(self, model: str, name: str, folder: str, stamp: str) -> None:
        """Put an adapter into service, or its newer version. Raises ``InvalidParameterError`` without room."""

        def put(found: Adapters, version: int) -> None:
            found.setdefault(model, {})[name] = AdapterName(name, folder, version, stamp)

        self._change(put)

    def remove(self, model: str, name: str) -> None:
        """Take an adapter out of service; requests that run go on."""
        self._change(lambda found, _version: found.get(model, {}).pop(name, None))

    def _change(self, change: Callable[[Adapters, int], object]) -> None:
        with self._board.locked():
            generation, found = self._current()
            change(found, generation)
            content = _packed(found)
            if len(content) > self._max_bytes:
                raise InvalidParameterError("there are too many adapters in service", param="lora_name")
            start = self._start(generation + 1)
            self._shared[start : start + len(content)] = content
            self._header.num_bytes[(generation + 1) % 2] = len(content)
            # Last, and in one store: from here on this one holds.
            self._header.generation = generation + 1

    def _start(self, generation: int) -> int:
        return ctypes.sizeof(_Header) + generation % 2 * self._max_bytes

    def _current(self) -> tuple[int, Adapters]:
        """The list that holds, and its generation."""
        while True:
            generation = self.generation
            start, num_bytes = self._start(generation), int(self._header.num_bytes[generation % 2])
            content = bytes(self._shared[start : start + num_bytes])
            # Until the next one holds, nobody writes where this one lies.
            if self.generation == generation:
                return generation, _unpacked(content)


def _packed(adapters: Adapters) -> bytes:
    told = {
        model: {one.name: [one.folder, one.version, one.stamp] for one in named.values()}
        for model, named in adapters.items()
    }
    return json.dumps(told).encode()


def _unpacked(content: bytes) -> Adapters:
    told = json.loads(content) if content else {}
    return {
        model: {name: AdapterName(name, *rest) for name, rest in adapters.items()} for model, adapters in told.items()
    }
