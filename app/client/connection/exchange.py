"""A request and its answer, bounded in time and size."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol

import requests

from ..client_errors import ClientError, ForeignAnswerError, LateError, NoAnswerError, SetupError, StreamEndedError
from ..fields import beginning_of, parsed, shortened
from .call_deadline import CallDeadline
from .server_address import ServerAddress
from .server_urls import reason, shown_url

# Of a whole answer or stream, decoded; and of what is read of an error.
MOST_BYTES = 256 * 2**20
PIECE_BYTES = 65536


@dataclass(frozen=True)
class Answer:
    """A whole answer, whatever it is."""

    url: str
    status: int
    headers: Mapping[str, str]
    data: bytes

    def json(self) -> Any:
        """Raise ``ForeignAnswerError``."""
        return parsed(self.data, f"the answer of {self.url}")

    def beginning(self) -> str:
        """What it says, for people."""
        return beginning_of(self.data) if self.data.strip() else "no text"

    def oddity(self) -> str:
        """What is wrong with an answer that is neither 200 nor an error."""
        if "Location" in self.headers:
            target = shown_url(shortened(self.headers["Location"]))
            return f"{self.url} answered {self.status}: it redirects to {target}; give that address"
        return f"{self.url} answered {self.status}, as no Forklift server does: {self.beginning()}"


class AnswerSource(Protocol):
    """A call and its answer, whichever way it went; a context that leaves it."""

    status: int
    headers: Mapping[str, str]

    def __enter__(self) -> AnswerSource: ...
    def __exit__(self, *_error: object) -> None: ...

    def pieces(self, size: int | None = None) -> Iterator[bytes]:
        """The stream of events as it comes. Raises ``ClientError``: ``StreamEndedError`` where it breaks off."""

    def whole(self) -> Answer:
        """The whole answer."""

    def hidden(self, text: str) -> str:
        """``text`` without the key."""

    def require_events(self) -> None:
        """Raise ``ForeignAnswerError`` where what ended without any event was no stream of them."""


class Exchange:
    """One request and its answer, bounded in time and size; a context that closes the connection."""

    status: int
    headers: Mapping[str, str]

    def __init__(self, server: ServerAddress, shown: str, session: requests.Session, deadline: CallDeadline):
        self._server, self._shown, self._session, self._deadline = server, shown, session, deadline
        self._response: requests.Response | None = None
        self._data: bytes | None = None
        self._ahead: Iterator[bytes] | None = None
        self.on_close: Callable[[], None] | None = None

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A stream that nobody ever read from.
        self.close()

    def close(self) -> None:
        """Leave the connection; may be called again."""
        self._deadline.close()
        if self._response is not None:
            self._response.close()
        self._session.close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()

    def begin(self, send: Callable[[], requests.Response]) -> None:
        """Get the head. Raises ``SetupError``, ``NoAnswerError``."""
        try:
            self._response = send()
        except Exception as failure:
            self.close()
            raise self._error(failure) from None
        except BaseException:
            self.close()
            raise
        self.status, self.headers = self._response.status_code, self._response.headers

    def pieces(self, size: int | None = None) -> Iterator[bytes]:
        """The body as it comes. Raises ``ClientError``: ``StreamEndedError`` where it breaks off."""
        ahead, self._ahead = self._ahead, None
        return self._arriving(size) if ahead is None else ahead

    def look_ahead(self, is_enough: Callable[[bytes], bool]) -> bytes:
        """The beginning of the body, until it is enough or ends; ``pieces`` will tell it all the same."""
        arriving, seen = self._arriving(None), b""
        for piece in arriving:
            seen += piece
            if is_enough(seen):
                break
        self._ahead = chain([seen], arriving)
        return seen

    def _arriving(self, size: int | None) -> Iterator[bytes]:
        assert self._response is not None
        # Without chunks, a larger read would wait until that much has come.
        size = size or (None if getattr(self._response.raw, "chunked", False) else 1)
        num_bytes = 0
        try:
            for piece in self._response.iter_content(size):
                self._deadline.heard_s = time.monotonic()
                num_bytes += len(piece)
                if num_bytes > MOST_BYTES:
                    raise ForeignAnswerError(f"the answer of {self._shown} is longer than {MOST_BYTES} bytes")
                yield piece
        except ClientError:
            raise
        except Exception as failure:
            raise self._error(failure, StreamEndedError) from None
        if self._deadline.is_over:
            raise self._late()

    def read(self) -> Exchange:
        """Fetch the whole body now: ``whole`` then has it."""
        try:
            self.whole()
        except StreamEndedError as failure:
            self.close()
            raise NoAnswerError(str(failure)) from None
        except BaseException:
            self.close()
            raise
        return self

    def whole(self, most_bytes: int = MOST_BYTES) -> Answer:
        """The answer, of which no more than ``most_bytes`` are read."""
        if self._data is None:
            kept, left = [], most_bytes
            for piece in self.pieces(PIECE_BYTES):
                kept.append(piece[:left])
                left -= len(piece)
                if left <= 0:
                    break
            data = b"".join(kept)
            self._data = data if self.status == 200 else self._server.hidden(data.decode("utf-8", "replace")).encode()
        return Answer(self._shown, self.status, self.headers, self._data)

    def hidden(self, text: str) -> str:
        """``text`` without the key."""
        return self._server.hidden(text)

    def require_events(self) -> None:
        """What ended without any event was none where it is of another kind. Raises ``ForeignAnswerError``."""
        kind = str(self.headers.get("Content-Type", ""))
        if kind and not kind.startswith("text/event-stream"):
            raise ForeignAnswerError(f"{self._shown} answered {shortened(kind)} in place of a stream of events")

    def _late(self) -> LateError:
        return LateError(f"{self._shown}: no whole answer within {self._deadline.limit_s:g} s")

    def _error(self, failure: Exception, broken: type[ClientError] = NoAnswerError) -> ClientError:
        """What a library raised, as one line that names the server, and the proxy where there is one."""
        if self._deadline.is_over or isinstance(failure, requests.ReadTimeout):
            return self._late()
        said = self._server.hidden(shortened(reason(failure)))
        proxy = self._server.proxy()
        way = self._server.shown_url
        way += f" through the proxy {proxy} (http_proxy, https_proxy or all_proxy)" if proxy else ""
        if isinstance(failure, requests.exceptions.ContentDecodingError):
            return ForeignAnswerError(f"the answer of {way} cannot be unpacked: {said}")
        if isinstance(failure, requests.ConnectionError | requests.exceptions.ChunkedEncodingError | requests.Timeout):
            what = "cannot reach" if broken is NoAnswerError else "the connection broke off:"
            return broken(f"{what} {way}: {said}")
        return SetupError(f"cannot ask {way}: {said}")
