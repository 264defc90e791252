"""The worker class: Gunicorn's thread worker, with request buffering and balanced accepting.

Runs in a worker process; the main thread accepts, reads, sends what readers leave waiting and closes, without ever
blocking; HTTP threads serve complete requests only. It watches over nothing: see ``watch``. With TLS the main
thread also does the handshakes, as the bytes come.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from gunicorn.http import get_parser
from gunicorn.workers.gthread import TConn, ThreadWorker

from app.core.errors import RequestError, shutting_down
from app.core.logs.logging import get_logger
from app.core.logs.tracebacks import for_callers
from app.core.system.memory.heap import trim_heap
from app.serve.board.admission import ConnectionTicket
from app.serve.board.balance import STEP_S, Deferral
from app.serve.board.slot_board import BoardEntry
from app.serve.connections.closing import LINGER_S, Closer
from app.serve.connections.descriptors import Descriptors, is_harmless, is_shortage
from app.serve.connections.link import Link
from app.serve.connections.sending import Sender
from app.serve.connections.tls import TlsWrapper
from app.serve.context import current
from app.serve.incoming import error_answers
from app.serve.incoming.gate import PROBES, SCRAPE, Gate
from app.serve.incoming.receiving import Incoming, Receiver
from app.serve.processes.http_threads import HttpThreads, NoThreadError

HEARTBEAT_S = 1.0
# What cancelled requests get to write their error event; a hurried master kills after 2 s.
LAST_WORDS_S = 1.5
HURRIED_LINGER_S = 0.3
NUM_PROBE_THREADS = 2

log = get_logger("serve")


class ForkliftWorker(ThreadWorker):
    """One worker process of Forklift."""

    alive: bool
    nr_conns: int
    tpool: HttpThreads

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._is_hurried = False
        self._deferral = Deferral()
        self._saw_client = False

    # main loop

    def get_thread_pool(self) -> HttpThreads:
        """Threads for the application. Probes and the scrape have their own: they never wait for one of these."""
        probes, scrape = HttpThreads("probe", NUM_PROBE_THREADS, NUM_PROBE_THREADS), HttpThreads("scrape", 1)
        self._special_threads = {**dict.fromkeys(PROBES, probes), SCRAPE: scrape}
        return HttpThreads("http", self.cfg.threads)

    def run(self) -> None:
        """Serve until told to stop, then finish what was begun."""
        self._set_up()
        self.poller.register(self.method_queue.fileno(), selectors.EVENT_READ, self.method_queue.run_callbacks)
        while self.alive and self.is_parent_alive():
            self._turn()
        self.alive = False
        self._stop()

    def _set_up(self) -> None:
        self._context = current()
        settings = self._context.settings
        self._gate = Gate(settings.api_keys)
        self._descriptors = Descriptors()
        self._max_connections = self._descriptors.max_connections(self.worker_connections)
        self._closer = Closer(self.poller, self._count_closed)
        self._sender = Sender(self.poller, settings.write_timeout_s, self._close, self._give_memory_back)
        self._tls = TlsWrapper(self.cfg) if self.cfg.is_ssl else None
        self._receiver = Receiver(
            self.poller,
            settings.body_timeout_s,
            settings.max_body_bytes,
            self._closer,
            self._judge_head,
            self._hand_over,
            self._note_refusal,
        )

    def _turn(self) -> None:
        """One round: heartbeat, events, deadlines."""
        self.notify()
        now_s = time.monotonic()
        if self._context.slot is not None:
            self._context.board.note_alive(self._context.slot, now_s)
        has_room = self.nr_conns < self._max_connections or self._receiver.evict_oldest()
        self.set_accept_enabled(has_room and not self._deferral.is_paused(now_s))
        self._saw_client = False
        self._deferral.polling_since_s = time.monotonic()
        self.wait_for_and_dispatch_events(self._timeout_s(now_s))
        if self._accepting and not self._saw_client:
            self._deferral.end()
        now_s = time.monotonic()
        for part in (self._receiver, self._sender, self._closer):
            part.expire(now_s)

    def _timeout_s(self, now_s: float) -> float:
        next_s = min(self._receiver.next_s(), self._sender.next_s(), self._closer.next_s(), now_s + HEARTBEAT_S)
        if self._deferral.is_paused(now_s):
            next_s = min(next_s, self._deferral.paused_until_s)
        return max(0.0, next_s - now_s)

    # accepting

    def accept(self, listener: Any) -> None:
        """Accept one connection if no other worker is better placed to serve it."""
        self._saw_client = True
        with self._context.board.locked() as rows:
            if not self._should_accept(rows):
                return
            ticket = self._ticket(rows)
        if not self._accept_now(listener, ticket) and ticket is not None:
            ticket.drop()

    def _should_accept(self, rows: list[BoardEntry]) -> bool:
        slot = self._context.slot
        is_full = slot is not None and rows[slot].is_ready and self._context.admission.is_full(rows)
        return self._deferral.should_accept(rows, slot, time.monotonic(), is_stopping=not self.alive, is_full=is_full)

    def _accept_now(self, listener: Any, ticket: ConnectionTicket | None) -> bool:
        try:
            sock, client = listener.accept()
        except OSError as error:
            self._survive(error, listener)
            return False
        try:
            sock = sock if self._tls is None else self._tls.wrap(sock)
        except OSError:
            return False
        self.nr_conns += 1
        self._receiver.add(sock, client, listener.getsockname(), ticket)
        return True

    def _ticket(self, rows: list[BoardEntry]) -> ConnectionTicket | None:
        slot = self._context.slot
        return None if slot is None else ConnectionTicket(self._context.board, rows[slot])

    def _survive(self, error: OSError, listener: Any) -> None:
        """Go on where only this one ``accept`` failed. Raises what is not such a case."""
        if is_shortage(error):
            if not self._receiver.evict_oldest(is_urgent=True):
                self._descriptors.turn_away(listener, error_answers.answer_to("", error_answers.no_descriptors()).data)
                self._deferral.paused_until_s = time.monotonic() + STEP_S
        elif not is_harmless(error):
            raise error

    # requests

    def _note_refusal(self, incoming: Incoming, answer: error_answers.Answer) -> None:
        _log_refusal(answer, incoming.client)
        self._count(answer)

    def _count(self, answer: error_answers.Answer) -> None:
        self._context.metrics.count_request(None, answer.status, answer.code)

    def _judge_head(self, incoming: Incoming) -> RequestError | None:
        if self._is_too_late(incoming):
            return error_answers.stopping()
        if not self._gate.keeps_body(incoming.buffer):
            incoming.buffer.cut()
        return None

    def _is_too_late(self, incoming: Incoming) -> bool:
        return not self.alive and incoming.buffer.path not in PROBES

    def _hand_over(self, incoming: Incoming) -> None:
        """A request is there: to the HTTP threads with it."""
        if self._is_too_late(incoming):
            self._receiver.answer(incoming, error_answers.stopping())
            return
        link = self._link(incoming)
        conn = self._connection(incoming, link)
        try:
            future = self._special_threads.get(incoming.buffer.path, self.tpool).submit(self.handle, conn)
        except NoThreadError:
            self._receiver.answer(incoming, error_answers.no_threads())
            return
        future.add_done_callback(lambda done: self.method_queue.defer(self._finish, link, incoming.num_bytes, done))

    def _link(self, incoming: Incoming) -> Link:
        """Where the answer goes. A connection that no longer counts as load does so again while it is served."""
        if incoming.ticket is None or not incoming.ticket.is_held:
            with self._context.board.locked() as rows:
                incoming.ticket = self._ticket(rows)
        return Link(
            incoming.sock,
            lambda link: self.method_queue.defer(self._sender.take, link),
            incoming.ticket,
            incoming.buffer.path,
        )

    def _connection(self, incoming: Incoming, link: Link) -> Any:
        """What Gunicorn keeps of a connection, as if its request had just been read."""
        conn = TConn(self.cfg, link, incoming.client, incoming.server)
        # The parser reads the bytes that are there and then finds the end; it never waits.
        conn.parser = get_parser(self.cfg, incoming.buffer.pieces(), incoming.client)
        conn.initialized = conn.data_ready = True
        return conn

    def handle(self, conn: Any) -> Any:
        """Serve one request (HTTP thread). Its connection counts as load until it has a place."""
        link: Link = conn.sock
        link.begin()
        try:
            return super().handle(conn)
        finally:
            if link.ticket is not None:
                link.ticket.drop()

    def handle_error(self, req: Any, client: Any, addr: Any, exc: Exception) -> None:
        """Answer what the parser or a broken application raised (HTTP thread)."""
        path = client.path if isinstance(client, Link) else ""
        answer = error_answers.answer_to(path, error_answers.of_exception(exc))
        self._count(answer)
        if error_answers.is_client_fault(exc):
            _log_refusal(answer, addr)
        else:
            with for_callers():
                log.error("request_failed", request_id=answer.request_id, exc_info=exc)
        with suppress(OSError):
            client.sendall(answer.data)

    def _finish(self, link: Link, num_bytes: int, done: Future[Any]) -> None:
        """The HTTP thread is done with a request of ``num_bytes``; the connection is closed once its answer is out."""
        if not done.cancelled() and done.exception() is not None:
            with for_callers():
                log.error("http_thread_failed", exc_info=done.exception())
        self._receiver.give_back(num_bytes)
        self._sender.finish(link)

    def _close(self, link: Link) -> None:
        if link.is_broken:
            self._closer.close_now(link.sock)
        else:
            self._closer.close(link.sock)

    def _give_memory_back(self) -> None:
        with suppress(NoThreadError):
            self._special_threads[SCRAPE].submit(trim_heap)

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
        inference.drain()
        if self._context.door is not None:
            self._context.door.drain()
        self._turn_until(self._context.settings.drain_timeout_s, lambda: self._is_idle or self._is_hurried)
        if not self._is_idle:
            inference.cancel_all(shutting_down())
            self._turn_until(LAST_WORDS_S, lambda: self._is_idle)
        self._receiver.refuse_all(error_answers.stopping())
        # Closed with unread input a connection is reset, which may take the answer with it.
        self._turn_until(HURRIED_LINGER_S if self._is_hurried else LINGER_S, lambda: not self.nr_conns)

    def _turn_until(self, limit_s: float, is_done: Callable[[], bool]) -> None:
        end_s = time.monotonic() + limit_s
        while not is_done() and time.monotonic() < end_s:
            self._turn()

    @property
    def _is_idle(self) -> bool:
        """Whether every client that asked for something has its answer."""
        is_idle = self.nr_conns <= len(self._closer) + self._receiver.num_silent
        return is_idle and (self._context.door is None or not self._context.door.num_calls)


def _log_refusal(answer: error_answers.Answer, client: Any) -> None:
    address = client[0] if isinstance(client, tuple) and client else ""
    log.warning("request_refused", status=answer.status, request_id=answer.request_id, client=address)
