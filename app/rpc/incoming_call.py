"""One call from its metadata to its status: read, placed, answered here or by another worker. Threads of gRPC's server.

A call holds one of these threads until its last reply is out. What is generated for a stream comes from a thread of
another pool, so that a caller that reads slowly holds no place.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial

import grpc

from app.core.errors import BadRequestError, BodyTimeoutError, RequestError
from app.http.requests.caller import ClientGoneError
from app.rpc.answering import Answering
from app.rpc.call_limits import CallLimits
from app.rpc.methods.method import Method
from app.rpc.peers import PeerLostError, Peers
from app.rpc.rpc_caller import RpcCaller
from app.rpc.statuses import status_of, trailers_of
from app.serve.context import WorkerContext

# A deadline further away than this is none: gRPC tells infinity as a time.
LONGEST_S = 10.0**8
# Longer ones are refused, and not repeated before that.
MAX_RECORD_ID = 256
# gRPC says that an answer is sent when the kernel has it; its connection is closed a moment later.
LAST_BYTES_S = 0.2


class Replies:
    """What one thread has for another: replies, then the end. ``error`` is why a call failed, once it has ended."""

    def __init__(self) -> None:
        self._replies: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.error: RequestError | None = None

    def send(self, reply: bytes) -> None:
        self._replies.put(reply)

    def end(self, error: RequestError | None) -> None:
        self.error = error
        self._replies.put(None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._replies.get, None)


class Calls(grpc.GenericRpcHandler):
    """The calls of one port; ``peers`` where another worker may be better placed to answer."""

    def __init__(
        self,
        context: WorkerContext,
        methods: Mapping[str, Method],
        answering: Answering,
        limits: CallLimits,
        peers: Peers | None,
    ):
        self._context = context
        self._settings = context.settings
        self._keys = [key.encode() for key in context.settings.api_keys]
        self._answering, self._limits, self._peers = answering, limits, peers
        self._lock = threading.Lock()
        self._num_calls = 0
        self._ended_s = float("-inf")
        self._handlers = {
            path: grpc.stream_stream_rpc_method_handler(partial(self._handle, path, method))
            for path, method in methods.items()
        }

    @property
    def num_calls(self) -> int:
        """Calls in hand, and one whose last bytes may be on their way."""
        return self._num_calls + (time.monotonic() - self._ended_s < LAST_BYTES_S)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        """The handler of a method; None for what is not ours. On the wire all kinds of methods look alike."""
        return self._handlers.get(handler_call_details.method)

    def _handle(
        self, path: str, method: Method, messages: Iterator[bytes], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        caller = RpcCaller(context.invocation_metadata() or (), limit_of(context), self._keys)
        self._count(1)
        if not context.add_callback(partial(self._end, caller)):
            # The call ended while it waited for this thread.
            self._end(caller)
        message = b"" if caller.is_refused else self._read(messages, context)
        for reply in self._replies(path, method, caller, message, context):
            with self._limits.of(context, self._settings.write_timeout_s):
                yield reply

    def _end(self, caller: RpcCaller) -> None:
        """The call is over: answered to its last byte, or left."""
        caller.leave()
        self._ended_s = time.monotonic()
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._lock:
            self._num_calls += change

    def _read(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes | RequestError:
        """The one message of the call, or what is wrong with it."""
        with self._limits.reading(context, self._settings.body_timeout_s) as wait:
            try:
                return next(messages)
            except StopIteration:
                return BadRequestError("the call has no message")
            except grpc.RpcError:
                late = BodyTimeoutError("the message was not received in time")
                return late if wait.was_ended else ClientGoneError()

    def _replies(
        self,
        path: str,
        method: Method,
        caller: RpcCaller,
        message: bytes | RequestError,
        context: grpc.ServicerContext,
    ) -> Iterable[bytes]:
        """Answered here, or by another worker; one that is lost before it begins is passed over."""
        lost: set[int] = set()
        while self._peers is not None and isinstance(message, bytes) and not caller.is_refused:
            pid, caller.ticket = self._peers.choose(frozenset(lost))
            if pid is None:
                break
            try:
                metadata = (("x-request-id", caller.request_id), *caller.metadata)
                return self._peers.forward(pid, path, message, metadata, caller.time_left_s(), context)
            except PeerLostError:
                lost.add(pid)
        if caller.ticket is None:
            caller.ticket = self._context.call_ticket()
        return self._answer(path, method, caller, message, context)

    def _answer(
        self,
        path: str,
        method: Method,
        caller: RpcCaller,
        message: bytes | RequestError,
        context: grpc.ServicerContext,
    ) -> Iterator[bytes]:
        context.send_initial_metadata(self._headers(caller))
        replies = Replies()
        begin: Callable[..., None] = self._answering.begin if method.is_streamed else self._answering.answer
        begin(path, caller, message, replies)
        yield from replies
        load = ("x-load", "{}/{}".format(*self._context.admission.load()))
        if replies.error is not None:
            tell(replies.error, context, load)
        else:
            context.set_trailing_metadata((load,))

    def _headers(self, caller: RpcCaller) -> tuple[tuple[str, str], ...]:
        found = [("x-request-id", caller.request_id)]
        if self._context.slot is not None:
            found.append(("x-worker", str(self._context.slot)))
        if caller.recordid is not None and len(caller.recordid) <= MAX_RECORD_ID:
            found.append(("recordid", caller.recordid))
        return tuple(found)


def limit_of(context: grpc.ServicerContext) -> float | None:
    """Seconds until the call's deadline; None without one."""
    left_s: float | None = context.time_remaining()
    return left_s if left_s is not None and left_s < LONGEST_S else None


def tell(error: RequestError, context: grpc.ServicerContext, *more: tuple[str, str]) -> None:
    """End the call with ``error``; ``more`` metadata stands behind it."""
    context.set_code(status_of(error))
    context.set_details(error.message)
    context.set_trailing_metadata((*trailers_of(error), *more))
