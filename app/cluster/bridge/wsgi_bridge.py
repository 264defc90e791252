"""The application of a worker behind a server that speaks ASGI. Event loop of the process; requests get HTTP threads.

It does what Gunicorn's worker does in front of the application: whole bodies, chunked ones too, within their limit and
deadline; a caller that leaves is told of at once, and one that does not read is dropped; probes have threads of their
own. A request ends when its thread is done with it.
"""

from __future__ import annotations

import asyncio
import contextvars
from contextlib import contextmanager
from typing import TYPE_CHECKING

from app.cluster.bridge.answer_pipe import AnswerPipe, End, Head, UnsentBytes
from app.cluster.bridge.asgi_types import DISCONNECT, Message, Receive, Scope, Send, response_body, response_start
from app.cluster.bridge.request_body import BodyReader, ClientLeftError, RefusedError, RequestBody
from app.cluster.bridge.wsgi_environ import make_environ
from app.cluster.bridge.wsgi_thread import respond
from app.core.logs.logging import get_logger
from app.core.logs.tracebacks import for_callers
from app.serve.incoming.error_answers import Answer, answer_to, failed, no_threads
from app.serve.incoming.gate import PROBES, SCRAPE
from app.serve.processes.http_threads import HttpThreads, NoThreadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed.wsgi import WSGIApplication

    from app.core.metrics import Metrics
    from app.core.settings import Settings

NUM_PROBE_THREADS = 2
# A reader keeps its connection by taking so much within each WRITE_TIMEOUT_S.
PIECE_BYTES = 32_768

log = get_logger("cluster")


class AnswerCutError(Exception):
    """The answer failed after its first bytes: raised to the server, which then closes the connection."""


class WsgiBridge:
    """``app`` as an ASGI application. Requests that never reach it are counted in ``metrics``; every answer gets
    ``headers``, with lower-case names."""

    def __init__(
        self, app: WSGIApplication, settings: Settings, metrics: Metrics, headers: Sequence[tuple[bytes, bytes]] = ()
    ):
        self._app = app
        self._metrics = metrics
        self._headers = headers
        self._write_timeout_s = settings.write_timeout_s
        self._bodies = BodyReader(settings)
        self._unsent = UnsentBytes()
        self._threads = HttpThreads("http", settings.num_http_threads)
        probes, scrape = HttpThreads("probe", NUM_PROBE_THREADS, NUM_PROBE_THREADS), HttpThreads("scrape", 1)
        self._special_threads = {**dict.fromkeys(PROBES, probes), SCRAPE: scrape}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await self._bodies.read(scope, receive)
        except ClientLeftError:
            return
        except RefusedError as refused:
            await self._refuse(answer_to(scope["path"], refused.error), send)
            return
        try:
            await self._answer(scope, body, receive, send)
        finally:
            self._bodies.give_back(body)

    async def _answer(self, scope: Scope, body: RequestBody, receive: Receive, send: Send) -> None:
        pipe = AnswerPipe(self._unsent)
        environ = make_environ(scope, body.data, body.num_bytes, pipe.is_gone)
        threads = self._special_threads.get(environ["PATH_INFO"], self._threads)
        # What the server keeps per request, as its id, is there in the thread.
        run = contextvars.copy_context().run
        with _watching(receive, pipe):
            try:
                threads.submit(run, respond, self._app, environ, pipe)
            except NoThreadError:
                await self._refuse(answer_to(scope["path"], no_threads()), send)
                return
            await self._forward(scope["path"], pipe, send)

    async def _forward(self, path: str, pipe: AnswerPipe, send: Send) -> None:
        """Send what comes out of ``pipe`` until its thread is done. Raises ``AnswerCutError``."""
        has_begun, is_read = False, True
        while not isinstance(piece := await pipe.get(), End):
            if is_read and not pipe.is_gone():
                has_begun = True
                is_read = await self._send_piece(piece, pipe, send)
        if not is_read:
            raise AnswerCutError("the client does not read")
        if piece.failure is not None and has_begun:
            raise AnswerCutError("the answer failed after its first bytes") from piece.failure
        if piece.failure is not None:
            await self._report(path, piece.failure, send)
        elif not pipe.is_gone():
            await send(response_body(b"", is_last=True))

    async def _send_piece(self, piece: Head | bytes, pipe: AnswerPipe, send: Send) -> bool:
        """Whether the reader takes it in time; one that does not is given up."""
        try:
            for message in self._messages(piece):
                async with asyncio.timeout(self._write_timeout_s):
                    await send(message)
                pipe.sent(len(message.get("body", b"")))
        except TimeoutError:
            log.info("client_does_not_read", timeout_s=self._write_timeout_s)
            pipe.give_up()
            return False
        return True

    async def _report(self, path: str, failure: BaseException, send: Send) -> None:
        """The application failed before it said anything."""
        answer = answer_to(path, failed())
        with for_callers():
            log.error("request_failed", request_id=answer.request_id, exc_info=failure)
        await self._tell(answer, send)

    async def _refuse(self, answer: Answer, send: Send) -> None:
        log.warning("request_refused", status=answer.status, request_id=answer.request_id)
        await self._tell(answer, send)

    async def _tell(self, answer: Answer, send: Send) -> None:
        self._metrics.count_request(None, answer.status, answer.code)
        headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers]
        await send(response_start(answer.status, [*headers, *self._headers]))
        await send(response_body(answer.body, is_last=True))

    def _messages(self, piece: Head | bytes) -> Iterator[Message]:
        if isinstance(piece, Head):
            yield response_start(piece.status, [*piece.headers, *self._headers])
        else:
            yield from (response_body(piece[at : at + PIECE_BYTES]) for at in range(0, len(piece), PIECE_BYTES))


@contextmanager
def _watching(receive: Receive, pipe: AnswerPipe) -> Iterator[None]:
    """Tell ``pipe`` when the client leaves; behind the block nobody reads it any more."""
    watcher = asyncio.ensure_future(_watch(receive, pipe))
    try:
        yield
    finally:
        watcher.cancel()
        pipe.give_up()


async def _watch(receive: Receive, pipe: AnswerPipe) -> None:
    while (await receive())["type"] != DISCONNECT:
        pass
    pipe.give_up()


async def _live(receive: Receive, send: Send) -> None:
    """Start and end of the server, for which there is nothing to do."""
    while (kind := (await receive())["type"]) != "lifespan.shutdown":
        await send({"type": f"{kind}.complete"})
    await send({"type": "lifespan.shutdown.complete"})
