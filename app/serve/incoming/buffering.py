"""Collecting one HTTP request from pieces until a thread can be spent on it: a pure state machine.

Runs on a worker's main thread, knows no sockets. It finds where head and body end, and nothing
more: whether the request is valid is for Gunicorn's parser, which gets the same bytes. Where the
framing looks unusual, the request is complete as it stands and the parser refuses it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import Enum, auto

from app.serve.incoming.chunks import ChunkDecoder, ChunkError

MAX_HEAD_BYTES = 65_536
# Gunicorn refuses longer request lines than this, whatever its settings.
MAX_REQUEST_LINE_BYTES = 8190
# The parser's buffer copies what it holds at every read, so it gets the body in pieces.
PIECE_BYTES = 65_536
_HEAD_END = b"\r\n\r\n"
_BARE_LINE_FEED = re.compile(rb"(?<!\r)\n")
# More digits than any size that is allowed, and few enough for int().
_CONTENT_LENGTH = re.compile(rb"[0-9]{1,18}")
_DROPPED_WHEN_DECODED = (b"transfer-encoding", b"content-length")
# Registered transfer codings that the parser would let through undecoded before `chunked`.
_OTHER_CODINGS = {b"gzip", b"x-gzip", b"deflate", b"compress", b"x-compress", b"identity"}


class Verdict(Enum):
    """What is to be done with a connection after its latest bytes."""

    MORE = auto()
    COMPLETE = auto()
    BODY_TOO_LARGE = auto()
    HEAD_TOO_LARGE = auto()
    BODY_INVALID = auto()
    CODING_UNSUPPORTED = auto()


class RequestBuffer:
    """One request, fed as it arrives.

    With ``COMPLETE`` and ``BODY_TOO_LARGE``, ``pieces`` are the bytes for the parser: a chunked
    body is given decoded, with its length in the head; one that is too large is cut, and its head
    says that it is larger than ``max_body_bytes``. ``wants_continue`` is True when the client
    waits for ``100 Continue`` before it sends its body. ``has_new_head`` is True after the feed that brought
    the end of the head; ``cut`` may then be called, for a request that will be refused whatever its body.
    """

    def __init__(self, max_body_bytes: int):
        self.wants_continue = False
        self._max_body_bytes = max_body_bytes
        self._head = bytearray()
        self._headers: list[tuple[bytes, bytes]] = []
        self._body = bytearray()
        self._num_body_bytes: int | None = None
        self._decoder: ChunkDecoder | None = None
        self._has_head = False
        self._is_cut = False
        self.has_new_head = False
        self.verdict = Verdict.MORE

    @property
    def is_empty(self) -> bool:
        """Whether not one byte has come."""
        return not self._head

    @property
    def path(self) -> str:
        """The path of the request line, as it was sent; empty where there is none."""
        return self._request_line.partition(b" ")[2].partition(b" ")[0].partition(b"?")[0].decode("latin-1")

    @property
    def method(self) -> str:
        return self._request_line.partition(b" ")[0].decode("latin-1")

    def header(self, name: bytes) -> bytes:
        """The one field of this lower-case name; empty where there is none, or more than one."""
        found = [value for other, value in self._headers if other == name]
        return found[0] if len(found) == 1 else b""

    def cut(self) -> None:
        """Give the request on without its body, which will not be kept."""
        self._is_cut = True
        self._body.clear()
        self._decoder = None
        self.verdict = Verdict.COMPLETE

    def feed(self, data: bytes) -> Verdict:
        """Take the next bytes of the connection."""
        had_head = self._has_head
        self.verdict = self._feed(data)
        self.has_new_head = self._has_head and not had_head
        return self.verdict

    def _feed(self, data: bytes) -> Verdict:
        if self._has_head:
            return self._feed_body(data)
        searched = max(0, len(self._head) - len(_HEAD_END))
        self._head += data
        # One empty line may come before the request line (RFC 9112, section 2.2).
        end = self._head.find(_HEAD_END, max(searched, 2 if self._head.startswith(b"\r\n") else 0))
        if end < 0:
            return self._judge_incomplete_head(searched)
        if end > MAX_HEAD_BYTES:
            return Verdict.HEAD_TOO_LARGE
        rest = bytes(self._head[end + len(_HEAD_END) :])
        del self._head[end + len(_HEAD_END) :]
        return self._end_head(rest)

    def pieces(self) -> Iterator[bytes]:
        """Head and body for the parser, which must find the end of the input after them."""
        head = bytes(self._head)
        body = self._body if self._decoder is None else self._decoder.body
        if self._decoder is not None or self._is_cut:
            head = _with_length(_without(head, _DROPPED_WHEN_DECODED), len(body))
        yield _without_continue(head)
        for at in range(0, len(body), PIECE_BYTES):
            yield bytes(body[at : at + PIECE_BYTES])

    def _judge_incomplete_head(self, searched: int) -> Verdict:
        line_end = self._head.find(b"\r\n", 2, MAX_REQUEST_LINE_BYTES + 4)
        is_hopeless = (
            not (self._head[:1].isalpha() or self._head[:1] == b"\r")
            or (line_end < 0 and len(self._head) > MAX_REQUEST_LINE_BYTES + 4)
            or _BARE_LINE_FEED.search(self._head, searched) is not None
        )
        if is_hopeless:
            return Verdict.COMPLETE
        return Verdict.HEAD_TOO_LARGE if len(self._head) > MAX_HEAD_BYTES else Verdict.MORE

    def _end_head(self, rest: bytes) -> Verdict:
        self._has_head = True
        self._headers = _headers(bytes(self._head))
        if self._has_other_coding:
            return Verdict.CODING_UNSUPPORTED
        self._choose_framing()
        if self._num_body_bytes is not None and self._num_body_bytes > self._max_body_bytes:
            return Verdict.BODY_TOO_LARGE
        verdict = self._feed_body(rest)
        self.wants_continue = verdict is Verdict.MORE and self._expects_continue and not rest
        return verdict

    def _choose_framing(self) -> None:
        lengths = [value for name, value in self._headers if name == b"content-length"]
        codings = [value for name, value in self._headers if name == b"transfer-encoding"]
        if not codings and len(lengths) == 1 and _CONTENT_LENGTH.fullmatch(lengths[0]):
            self._num_body_bytes = int(lengths[0])
        elif not lengths and [coding.lower() for coding in codings] == [b"chunked"] and self._is_version_1_1:
            self._decoder = ChunkDecoder()

    def _feed_body(self, data: bytes) -> Verdict:
        if self._decoder is not None:
            return self._feed_chunks(self._decoder, data)
        if self._num_body_bytes is None:
            return Verdict.COMPLETE
        self._body += data[: self._num_body_bytes - len(self._body)]
        return Verdict.MORE if len(self._body) < self._num_body_bytes else Verdict.COMPLETE

    def _feed_chunks(self, decoder: ChunkDecoder, data: bytes) -> Verdict:
        try:
            decoder.feed(data)
        except ChunkError:
            return Verdict.BODY_INVALID
        if len(decoder.body) > self._max_body_bytes:
            return Verdict.BODY_TOO_LARGE
        return Verdict.COMPLETE if decoder.is_complete else Verdict.MORE

    @property
    def _has_other_coding(self) -> bool:
        """Whether the body is chunked and something else besides."""
        codings = [value.lower() for name, value in self._headers if name == b"transfer-encoding"]
        *others, last = (coding.strip(b" \t") for coding in b",".join(codings).split(b","))
        return last == b"chunked" and bool(others) and set(others) <= _OTHER_CODINGS

    @property
    def _request_line(self) -> bytes:
        return bytes(self._head[: MAX_REQUEST_LINE_BYTES + 4].lstrip(b"\r\n").partition(b"\r\n")[0])

    @property
    def _is_version_1_1(self) -> bool:
        return self._request_line.endswith(b" HTTP/1.1")

    @property
    def _expects_continue(self) -> bool:
        return self._is_version_1_1 and any(_is_continue(name, value) for name, value in self._headers)


def _is_continue(name: bytes, value: bytes) -> bool:
    return name.lower() == b"expect" and value.strip(b" \t").lower() == b"100-continue"


def _headers(head: bytes) -> list[tuple[bytes, bytes]]:
    """Header fields with lower-case names, as they stand: a name with a space is not the name."""
    lines = head.lstrip(b"\r\n").split(b"\r\n")[1:]
    fields = (line.partition(b":") for line in lines)
    return [(name.lower(), value.strip(b" \t")) for name, colon, value in fields if colon]


def _without(head: bytes, names: tuple[bytes, ...]) -> bytes:
    lines = head.split(b"\r\n")
    return b"\r\n".join(line for line in lines if line.partition(b":")[0].lower() not in names)


def _without_continue(head: bytes) -> bytes:
    """No such line may reach the parser, however often and in whatever version: it would answer a second time."""
    lines = (line.partition(b":") for line in head.split(b"\r\n"))
    return b"\r\n".join(name + colon + value for name, colon, value in lines if not _is_continue(name, value))


def _with_length(head: bytes, num_bytes: int) -> bytes:
    return head.removesuffix(b"\r\n") + b"Content-Length: %d\r\n\r\n" % num_bytes
