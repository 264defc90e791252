"""gRPC's own services beside ours: health, which is SERVING while any worker takes work, and reflection.

Health is looked at on a thread of its own; reflection runs on threads of gRPC's server, and waits for nobody for long.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection, reflection_pb2, reflection_pb2_grpc

from app.core.errors import UnauthorizedError
from app.core.states import overall_state
from app.rpc.call_limits import CallLimits
from app.rpc.rpc_caller import RpcCaller
from app.rpc.statuses import status_of
from app.serve.context import WorkerContext

PERIOD_S = 0.5


class HealthStatus:
    """Tells gRPC's health service what ``/readyz`` tells, for the server as a whole and for each of ``names``."""

    def __init__(self, context: WorkerContext, names: Sequence[str]):
        self._servicer = health.HealthServicer()
        self._context, self._names = context, ("", *names)
        self._has_ended = threading.Event()

    def add_to(self, server: grpc.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)

    def start(self) -> None:
        self.look()
        threading.Thread(target=self._run, name="rpc-health", daemon=True).start()

    def stop(self) -> None:
        """Nothing is served from now on."""
        self._has_ended.set()
        self._servicer.enter_graceful_shutdown()

    def look(self) -> None:
        """Tell the state of the server as it is now."""
        rows = [row for row in self._context.board.rows() if row.pid is not None]
        is_ready = overall_state([row.state for row in rows]) == "ready"
        states = health_pb2.HealthCheckResponse
        for name in self._names:
            self._servicer.set(name, states.SERVING if is_ready else states.NOT_SERVING)

    def _run(self) -> None:
        while not self._has_ended.wait(PERIOD_S):
            self.look()


class Reflection(reflection.ReflectionServicer):
    """gRPC's reflection for those who may call: it needs a key where the methods do."""

    def __init__(self, context: WorkerContext, limits: CallLimits, names: Sequence[str]):
        super().__init__((*names, health.SERVICE_NAME, reflection.SERVICE_NAME))
        self._settings, self._limits = context.settings, limits
        self._keys = [key.encode() for key in context.settings.api_keys]

    def add_to(self, server: grpc.Server) -> None:
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self, server)

    def ServerReflectionInfo(  # noqa: N802
        self, request_iterator: Iterator[reflection_pb2.ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[reflection_pb2.ServerReflectionResponse]:
        """gRPC's own, asked as fast as its caller may be waited for."""
        try:
            RpcCaller(context.invocation_metadata() or (), None, self._keys).require_key()
        except UnauthorizedError as error:
            context.abort(status_of(error), error.message)
        yield from super().ServerReflectionInfo(self._in_time(request_iterator, context), context)

    def _in_time(
        self, requests: Iterator[reflection_pb2.ServerReflectionRequest], context: grpc.ServicerContext
    ) -> Iterator[reflection_pb2.ServerReflectionRequest]:
        while True:
            with self._limits.reading(context, self._settings.body_timeout_s):
                request = next(requests, None)
            if request is None:
                return
            yield request
