"""The worker class: Gunicorn's thread worker, with request buffering and balanced accepting.

Runs in a worker process; the main thread accepts, reads and closes without ever blocking, HTTP
threads serve complete requests only. It watches over nothing: see ``watch``. With TLS the main
thread also does the handshakes, as the bytes come.
"""

from __future__ import annotations

import errno
import selectors
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from typing import Any

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.core.errors import shutting_down
from app.core.logging import get_logger
from app.core.tracebacks import for_callers
from app.serve import answers
from app.serve.admission import Hold
from app.serve.balance import Deferral, is_my_turn
from app.serve.board import Row
from app.serve.buffering import RequestBuffer
from app.serve.context import current
from app.serve.receiving import Closer, Incoming, Receiver
from app.serve.tls import Door

HEARTBEAT_S = 1.0
# What cancelled requests get to write their error event; a hurried master kills after 2 s.
LAST_WORDS_S = 1.5
NO_DESCRIPTORS_PAUSE_S = 0.2
_NOBODY_THERE = (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED, errno.EINTR)
_NO_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

log = get_logger("serve")


class ForkliftWorker(ThreadWorker):
    """One worker process of Forklift."""

    alive: bool
    nr_conns: int

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._is_hurried = False
        self._deferral = Deferral()
        self._saw_client = False

    # main loop

    def run(self) -> None:
        """Serve until told to stop, then finish what was begun."""
        self._context = current()
        self._settings = self._context.settings
        self._closer = Closer(self.poller, self._count_closed)
        self._door = Door(self.cfg) if self.cfg.is_ssl else None
        self._receiver = Receiver(
            self.poller, self._settings.body_timeout_s, self._hand_over, self._closer, self._note_refusal
        )
        self.poller.register(self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks)
        while self.alive and self.is_parent_alive():
            self._turn()
        self.alive = False
        self._stop()

    def _turn(self) -> None:
        """One round: heartbeat, events, deadlines."""
        self.notify()
        now_s = time.monotonic()
        has_room = self.nr_conns < self.worker_connections or self._receiver.evict_oldest()
        self.set_accept_enabled(self.alive and has_room and not self._deferral.is_paused(now_s))
        self._saw_client = False
        self._deferral.polling_since_s = time.monotonic()
        self.wait_for_and_dispatch_events(self._timeout_s(now_s))
        if self._accepting and not self._saw_client:
            self._deferral.end()
        now_s = time.monotonic()
        self._receiver.expire(now_s)
        self._closer.expire(now_s)

    def _timeout_s(self, now_s: float) -> float:
        next_s = min(self._receiver.next_s(), self._closer.next_s(), now_s + HEARTBEAT_S)
        if self._deferral.is_paused(now_s):
            next_s = min(next_s, self._deferral.paused_until_s)
        return max(0.0, next_s - now_s)

    # accepting

    def accept(self, listener: Any) -> None:
        """Accept one connection if no other worker is better placed to serve it."""
        self._saw_client = True
        with self._context.board.locked() as rows:
            if not self._should_accept(rows) and self._deferral.defer(time.monotonic()):
                return
            incoming = self._accept_now(listener, rows)
        if incoming is not None:
            self._receiver.add(incoming)

    def _should_accept(self, rows: list[Row]) -> bool:
        """Where every place is taken, whoever is first may refuse."""
        is_refusing = self._context.slot is not None and rows[self._context.slot].is_ready
        return is_my_turn(rows, self._context.slot) or (is_refusing and self._context.admission.is_full(rows))

    def _accept_now(self, listener: Any, rows: list[Row]) -> Incoming | None:
        try:
            sock, client = listener.accept()
        except OSError as error:
            self._survive(error)
            return None
        try:
            sock = sock if self._door is None else self._door.wrap(sock)
        except OSError:
            return None
        self.nr_conns += 1
        buffer = RequestBuffer(self._settings.max_body_bytes)
        return Incoming(sock, client, listener.getsockname(), buffer, self._hold(rows))

    def _hold(self, rows: list[Row]) -> Hold | None:
        slot = self._context.slot
        return None if slot is None else Hold(self._context.board, rows[slot])

    def _survive(self, error: OSError) -> None:
        """Go on where only this one ``accept`` failed. Raises what is not such a case."""
        if error.errno in _NO_DESCRIPTORS:
            log.error("cannot_accept", reason=error.strerror, num_connections=self.nr_conns)
            self._deferral.paused_until_s = time.monotonic() + NO_DESCRIPTORS_PAUSE_S
        elif error.errno not in _NOBODY_THERE:
            raise error

    # requests

    def _note_refusal(self, incoming: Incoming, answer: answers.Answer) -> None:
        _log_refusal(answer, incoming.client)
        self._count(answer)

    def _count(self, answer: answers.Answer) -> None:
        self._context.metrics.count_request(None, answer.status, answer.code)

    def _hand_over(self, incoming: Incoming) -> None:
        """A request is there: to the HTTP threads with it."""
        conn = TConn(self.cfg, incoming.sock, incoming.client, incoming.server)
        # The parser reads the bytes that are there and then finds the end; it never waits.
        conn.parser = get_parser(self.cfg, iter(incoming.buffer.pieces()), incoming.client)
        conn.initialized = conn.data_ready = True
        conn.hold = incoming.hold
        if conn.hold is None or not conn.hold.is_held:
            with self._context.board.locked() as rows:
                conn.hold = self._hold(rows)
        self.enqueue_req(conn)

    def handle(self, conn: Any) -> Any:
        """Serve one request (HTTP thread). Its connection counts as load until it has a place."""
        hold = getattr(conn, "hold", None)
        with nullcontext() if hold is None else self._context.admission.carrying(hold):
            return super().handle(conn)

    def handle_request(self, req: Any, conn: Any) -> Any:
        """Run the application (HTTP thread); each of its writes has a deadline."""
        conn.sock.settimeout(self._settings.write_timeout_s)
        try:
            return super().handle_request(req, conn)
        except TimeoutError:
            log.info("client_does_not_read", timeout_s=self._settings.write_timeout_s)
            return False

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what the parser or a broken application raised (HTTP thread)."""
        answer = answers.of_exception(exc)
        self._count(answer)
        if answers.is_client_fault(exc):
            _log_refusal(answer, addr)
        else:
            with for_callers():
                log.error("request_failed", request_id=answer.request_id, exc_info=exc)
        with suppress(OSError):
            client.settimeout(LAST_WORDS_S)
            client.sendall(answer.data)

    def finish_request(self, conn: Any, fs: Future[Any]) -> None:
        """The HTTP thread is done with a connection; closing happens here, without blocking."""
        if not fs.cancelled() and fs.exception() is not None:
            with for_callers():
                log.error("http_thread_failed", exc_info=fs.exception())
        self._closer.close(conn.sock)

    def _count_closed(self) -> None:
        self.nr_conns -= 1

    # stopping

    def handle_quit(self, sig: int, frame: Any) -> None:
        """SIGINT, SIGQUIT: stop without waiting for running requests. Only notes it: the handler may
        have interrupted a thread that holds the board's lock."""
        self._is_hurried = True
        self.handle_exit(sig, frame)

    def _stop(self) -> None:
        """Finish running requests in their time, then cancel the rest."""
        inference = self._context.inference
        if self._context.slot is not None:
            self._context.board.set_state(self._context.slot, "draining")
        self._receiver.drop_silent()
        inference.drain()
        self._turn_until(self._settings.drain_timeout_s, lambda: self._is_idle or self._is_hurried)
        if not self._is_idle:
            inference.cancel_all(shutting_down())
            self._turn_until(LAST_WORDS_S, lambda: self._is_idle)
        self.tpool.shutdown(wait=False)

    def _turn_until(self, limit_s: float, is_done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + limit_s
        while not is_done() and time.monotonic() < end_s:
            self._turn()

    @property
    def _is_idle(self) -> bool:
        """Whether every client has its answer."""
        return self.nr_conns <= len(self._closer)


def _log_refusal(answer: answers.Answer, client: Any) -> None:
    address = client[0] if isinstance(client, tuple) and client else ""
    log.warning("request_refused", status=answer.status, request_id=answer.request_id, client=address)
