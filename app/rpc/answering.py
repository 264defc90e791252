"""Answers one call: its log line, its key, its body, its replies, and whatever goes wrong on the way.

Threads of gRPC's server, and of a pool for streams. What HTTP's application does around its routes is done here around
the methods, with the same parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol

from app.core.errors import BodyTooLargeError, InternalError, OverloadedError, RequestError
from app.core.logs.logging import get_logger
from app.core.system.native import guarded
from app.http.application.error_envelope import as_request_error, log_unexpected
from app.http.application.request_log import RequestRecord, begin_record, end_record, record
from app.http.application.service import Service
from app.http.application.work_bytes import WorkBytes, limit_of
from app.http.requests.caller import ClientGoneError
from app.rpc.methods.conversion import parse
from app.rpc.methods.method import Method, ignored_of
from app.rpc.rpc_caller import RpcCaller
from app.serve.processes.http_threads import HttpThreads, NoThreadError

OK = 200

log = get_logger("rpc")


class Listener(Protocol):
    """Who the answer goes to, from any thread."""

    def send(self, reply: bytes) -> None: ...

    def end(self, error: RequestError | None) -> None:
        """Nothing more comes."""


class Answering:
    """The pool of one worker, and the methods that it answers."""

    def __init__(self, service: Service, methods: Mapping[str, Method]):
        self._service = service
        self._methods = methods
        self._threads = HttpThreads("rpc", service.settings.num_http_threads)
        self._work_bytes = WorkBytes(limit_of(service.settings.max_body_bytes))

    def begin(self, path: str, caller: RpcCaller, message: bytes | RequestError, listener: Listener) -> None:
        """Have a thread answer the call of ``path``; ``message`` is its request, or why there is none."""
        try:
            self._threads.submit(self.answer, path, caller, message, listener)
        except NoThreadError:
            listener.end(OverloadedError("the server cannot start a thread"))

    def answer(self, path: str, caller: RpcCaller, message: bytes | RequestError, listener: Listener) -> None:
        """The same on this thread, to the end."""
        context = self._service.context
        begin_record(RequestRecord(caller, path, context.slot, context.settings.log_prompts))
        error: RequestError | None = InternalError()
        try:
            error = self._failure(lambda: self._answer(path, caller, message, listener))
            record().error = error
            record().emit(OK if error is None else error.status, context.metrics, path)
        finally:
            end_record()
            if caller.ticket is not None:
                caller.ticket.drop()
            listener.end(error)

    def _failure(self, answer: Callable[[], None]) -> RequestError | None:
        """Why ``answer`` failed, if it did."""
        try:
            with guarded():
                answer()
        except Exception as failure:
            error = as_request_error(failure)
            if isinstance(error, InternalError) and not isinstance(failure, RequestError):
                log_unexpected(failure, record().request_id)
            return error
        return None

    def _answer(self, path: str, caller: RpcCaller, message: bytes | RequestError, listener: Listener) -> None:
        caller.require_key()
        if isinstance(message, RequestError):
            raise message
        if caller.is_gone():
            raise ClientGoneError()
        limit = self._service.settings.max_body_bytes
        if len(message) > limit:
            raise BodyTooLargeError(f"the message is larger than {limit} bytes (FORKLIFT_MAX_BODY_BYTES)")
        self._work_bytes.take(len(message))
        try:
            for reply in self._replies(self._methods[path], caller, message):
                listener.send(reply)
        finally:
            self._work_bytes.give_back(len(message))

    def _replies(self, method: Method, caller: RpcCaller, message: bytes) -> Iterator[bytes]:
        fields = method.read(parse(method.request, message), ignored_of(self._service))
        if caller.recordid is not None and "recordid" in method.request.DESCRIPTOR.fields_by_name:
            fields.setdefault("recordid", caller.recordid)
        for reply in method.answer(self._service, fields):
            yield reply.SerializeToString()
