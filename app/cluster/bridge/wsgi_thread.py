"""Has the WSGI application answer one request. HTTP threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from app.cluster.bridge.answer_pipe import AnswerPipe, Head, ReaderGoneError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication


def respond(app: WSGIApplication, environ: dict[str, Any], pipe: AnswerPipe) -> None:
    """Put the answer into ``pipe``, and its end once the application has closed it."""
    answer = _Answer(pipe)
    try:
        # Who left while the request waited for a thread needs no answer.
        if not pipe.is_gone():
            answer.send(app(environ, answer.start))
    except ReaderGoneError:
        pipe.end()
    except BaseException as failure:
        pipe.end(failure)
    else:
        pipe.end()


class _Answer:
    """What ``start_response`` was told goes out with the first bytes: until then the application may think again."""

    def __init__(self, pipe: AnswerPipe):
        self._pipe = pipe
        self._head: Head | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], _exc_info: object = None, /
    ) -> Callable[[bytes], None]:
        fields = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        self._head = Head(int(status[:3]), fields)
        return self._write

    def send(self, pieces: Iterable[bytes]) -> None:
        try:
            for piece in pieces:
                if piece:
                    self._write(piece)
            self._send_head()
        finally:
            if callable(close := getattr(pieces, "close", None)):
                close()

    def _write(self, data: bytes) -> None:
        self._send_head()
        self._pipe.put(data)

    def _send_head(self) -> None:
        if self._head is not None:
            self._pipe.put(self._head)
            self._head = None
