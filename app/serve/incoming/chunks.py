"""Decoding of chunked bodies piece by piece (RFC 9112, section 7.1): a pure state machine.

Knows no sockets. Extensions and trailers are skipped, within bounds.
"""

from __future__ import annotations

import re

MAX_SIZE_LINE_BYTES = 1024
MAX_TRAILER_BYTES = 8192
# Each chunk costs the main thread microseconds, whatever its size: beyond the first ones they must hold this much.
NUM_FREE_CHUNKS = 1024
LEAST_CHUNK_BYTES = 128
# Sixteen digits are 64 bits; the spaces before an extension are "bad whitespace" of the grammar.
_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?")


class ChunkError(ValueError):
    """The bytes are not a chunked body."""


class ChunkDecoder:
    """Bytes as they come in, the body as it grows out; bytes after the end are ignored."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.is_complete = False
        self._raw = bytearray()
        self._missing = 0
        self._num_chunks = 0
        self._step = self._read_size
        self._num_trailer_bytes = 0

    def feed(self, data: bytes) -> None:
        """Decode what is there. Raises ``ChunkError``."""
        self._raw += data
        while not self.is_complete and self._step():
            pass

    # Each step consumes from the raw bytes and returns False where it needs more of them.

    def _read_size(self) -> bool:
        line = self._take_line(MAX_SIZE_LINE_BYTES)
        if line is None:
            return False
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            raise ChunkError("invalid chunk size")
        self._missing = int(match[1], 16)
        self._num_chunks += 1
        if self._num_chunks > NUM_FREE_CHUNKS + len(self.body) // LEAST_CHUNK_BYTES:
            raise ChunkError("too many small chunks")
        self._step = self._read_data if self._missing else self._read_trailer
        return True

    def _read_data(self) -> bool:
        piece = self._raw[: self._missing]
        del self._raw[: len(piece)]
        self.body += piece
        self._missing -= len(piece)
        if self._missing:
            return False
        self._step = self._read_data_end
        return True

    def _read_data_end(self) -> bool:
        if not b"\r\n".startswith(self._raw[:2]):
            raise ChunkError("a chunk is longer than its size")
        if len(self._raw) < 2:
            return False
        del self._raw[:2]
        self._step = self._read_size
        return True

    def _read_trailer(self) -> bool:
        line = self._take_line(MAX_TRAILER_BYTES)
        if line is None:
            return False
        self._num_trailer_bytes += len(line) + 2
        if self._num_trailer_bytes > MAX_TRAILER_BYTES:
            raise ChunkError("the trailer is too long")
        self.is_complete = not line
        return True

    def _take_line(self, max_bytes: int) -> bytes | None:
        """The next line without its end; None while it is not complete."""
        end = self._raw.find(b"\r\n", 0, max_bytes + 2)
        if end < 0:
            if len(self._raw) > max_bytes:
                raise ChunkError("a line is too long")
            return None
        line = bytes(self._raw[:end])
        del self._raw[: end + 2]
        return line
