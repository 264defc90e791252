"""Which worker serves a call, and how a call gets to another one: its bytes go over a socket file of that worker.

Threads of gRPC's server. A client's calls all come by one connection, which one worker has accepted; this spreads them.
Knows rows and bytes, not messages.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from app.core.states import WORKER_STATES
from app.rpc.call_limits import CallLimits
from app.rpc.server_options import PEER_OPTIONS
from app.rpc.statuses import Metadata
from app.serve.board.admission import ConnectionTicket
from app.serve.board.slot_board import BoardEntry
from app.serve.context import WorkerContext

# A worker that counts a call says so at once; one that does not in this time does not run.
BEGIN_S = 5.0


class PeerLostError(Exception):
    """Nothing came back from the other worker: it has not begun to answer."""


class Peers:
    """The workers of this server as one of them sees them; ``folder`` holds a socket file of each."""

    def __init__(self, context: WorkerContext, folder: Path, limits: CallLimits):
        self._context, self._folder, self._limits = context, folder, limits
        self._lock = threading.Lock()
        self._sent: Counter[int] = Counter()
        self._channels: dict[int, grpc.Channel] = {}

    def socket_of(self, pid: int) -> Path:
        """The socket file of the worker ``pid``."""
        return self._folder / f"rpc-{pid}.sock"

    def choose(self, without: frozenset[int] = frozenset()) -> tuple[int | None, ConnectionTicket | None]:
        """The process that is to serve a call, None for this one; it counts as load there from now on.

        Where every place is taken this worker refuses at once.
        """
        own = self._context.slot
        with self._context.board.locked() as rows:
            is_full = own is not None and rows[own].is_ready and self._context.admission.is_full(rows)
            best = None if is_full else self._best(rows, own, without)
            if best is not None:
                with self._lock:
                    self._sent[best] += 1
            elif own is not None:
                return None, ConnectionTicket(self._context.board, rows[own], is_call=True)
            return best, None

    def _best(self, rows: list[BoardEntry], own: int | None, without: frozenset[int]) -> int | None:
        now_s = time.monotonic()
        others = [
            (self._rank(row), row.pid)
            for slot, row in enumerate(rows)
            if slot != own and row.pid not in without and self._can_serve(row, now_s)
        ]
        if not others:
            return None
        rank, pid = min(others)
        can_serve_here = own is not None and WORKER_STATES[rows[own].state] != "draining"
        return None if can_serve_here and own is not None and self._rank(rows[own]) <= rank else pid

    def _rank(self, row: BoardEntry) -> tuple[bool, int, int]:
        """Sequences and calls as the board has them, and what was sent there and is not counted there yet. Connections
        decide between equal ones alone: one may only be a probe's, and no call waits behind a sequence for that."""
        num_wanted = row.num_running + row.num_waiting + row.num_calls + self._sent[row.pid]
        return not row.is_ready, num_wanted, row.num_connections

    def _can_serve(self, row: BoardEntry, now_s: float) -> bool:
        is_there = row.pid != 0 and WORKER_STATES[row.state] not in ("draining", "failed") and not row.is_silent(now_s)
        return is_there and self.socket_of(row.pid).exists()

    def forward(
        self,
        pid: int,
        path: str,
        message: bytes,
        metadata: Metadata,
        limit_s: float | None,
        context: grpc.ServicerContext,
    ) -> Iterator[bytes]:
        """The replies of the worker ``pid``, which has begun. Raises ``PeerLostError`` where it has not."""
        call = self._channel(pid).unary_stream(path)(message, timeout=limit_s, metadata=metadata)
        if not context.add_callback(call.cancel):
            call.cancel()
        context.send_initial_metadata(self._begun(pid, call))
        self._context.metrics.count_passed_on()
        return self._passed_on(call, context)

    def _begun(self, pid: int, call: Any) -> Metadata:
        """What the other worker says once it counts the call. Raises ``PeerLostError``."""
        try:
            with self._limits.of(call, BEGIN_S):
                found = tuple(call.initial_metadata() or ())
        finally:
            with self._lock:
                self._sent[pid] -= 1
        if not found:
            raise PeerLostError()
        return found

    def _passed_on(self, call: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        try:
            yield from call
        except grpc.RpcError:
            context.set_code(call.code())
            context.set_details(call.details() or "")
        finally:
            call.cancel()
        context.set_trailing_metadata(tuple(call.trailing_metadata() or ()))

    def _channel(self, pid: int) -> grpc.Channel:
        with self._lock:
            if pid not in self._channels:
                self._forget_dead()
                self._channels[pid] = grpc.insecure_channel(f"unix:{self.socket_of(pid)}", PEER_OPTIONS)
            return self._channels[pid]

    def _forget_dead(self) -> None:
        """Close channels to processes that have left the board."""
        alive = {row.pid for row in self._context.board.rows()}
        for pid in [one for one in self._channels if one not in alive]:
            self._channels.pop(pid).close()
