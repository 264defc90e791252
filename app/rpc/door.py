"""The gRPC door of a worker: one port for callers, and a socket file for the other workers.

Opened after the fork, on the main thread of the worker; gRPC's threads and pools of ours do the rest.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import grpc

from app.core.logs.logging import get_logger
from app.http.answers.stream import PING_INTERVAL_S
from app.http.application.service import Service
from app.http.lora.adapter_service import AdapterService
from app.rpc.answering import Answering
from app.rpc.call_limits import NUM_READERS, CallLimits
from app.rpc.credentials import server_credentials
from app.rpc.health_status import HealthStatus, Reflection
from app.rpc.incoming_call import Calls
from app.rpc.methods.method_table import METHODS, SERVICES
from app.rpc.peers import Peers
from app.rpc.server_options import NUM_WAITING_CALLS, peer_server_options, server_options
from app.serve.board.metrics_folder import FOLDER
from app.serve.context import WorkerContext
from app.serve.processes.http_threads import HttpThreads

# Beyond those whose answers are waited for: what is refused, health, reflection.
NUM_SPARE_THREADS = 8
# What calls get beyond DRAIN_TIMEOUT_S, to be told that they are over.
GRACE_S = 2.0

log = get_logger("rpc")


class RpcDoor:
    """Where gRPC calls come in."""

    def __init__(self, context: WorkerContext):
        self._context = context
        self._limits = CallLimits()
        self._health = HealthStatus(context, SERVICES)
        self._servers: list[grpc.Server] = []
        self._calls: list[Calls] = []
        service = Service(context, PING_INTERVAL_S, int(time.time()), AdapterService(context))
        self._answering = Answering(service, METHODS)

    @property
    def num_calls(self) -> int:
        """Calls in hand: those that are read, answered here or passed on."""
        return sum(one.num_calls for one in self._calls)

    def open(self) -> None:
        """Take calls from now on. Raises ``RuntimeError`` where the port cannot be listened on."""
        self._limits.start()
        self._open_to_callers(self._open_to_peers())
        log.info("grpc_listening", address=self._context.settings.grpc_bind)

    def drain(self) -> None:
        self._health.stop()
        for server in self._servers:
            server.stop(self._context.settings.drain_timeout_s + GRACE_S)

    def close(self) -> None:
        """End all calls, for those whose process goes on."""
        self._health.stop()
        for server in self._servers:
            server.stop(None)
        self._limits.stop()

    def _open_to_peers(self) -> Peers | None:
        """The other workers, who can call this one now; None in a server of one process."""
        folder = os.environ.get(FOLDER)
        if folder is None or len(self._context.board) < 2:
            return None
        settings = self._context.settings
        peers = Peers(self._context, Path(folder), self._limits)
        server = self._make("rpc-peer", settings.num_http_threads, peer_server_options(settings), None)
        path = peers.socket_of(os.getpid())
        path.unlink(missing_ok=True)
        server.add_insecure_port(f"unix:{path}")
        server.start()
        return peers

    def _open_to_callers(self, peers: Peers | None) -> None:
        settings = self._context.settings
        # Every place of the server may be taken by calls of one connection.
        num_answered = settings.max_running * len(self._context.board) + settings.max_queue
        server = self._make("rpc-call", num_answered + NUM_READERS + NUM_SPARE_THREADS, server_options(settings), peers)
        self._health.add_to(server)
        Reflection(self._context, self._limits, SERVICES).add_to(server)
        credentials = server_credentials(settings)
        if credentials is None:
            server.add_insecure_port(settings.grpc_bind)
        else:
            server.add_secure_port(settings.grpc_bind, credentials)
        server.start()
        self._health.start()

    def _make(self, name: str, num_threads: int, options: list[tuple[str, int]], peers: Peers | None) -> grpc.Server:
        calls = Calls(self._context, METHODS, self._answering, self._limits, peers)
        server = grpc.server(
            HttpThreads(name, num_threads),
            handlers=(calls,),
            options=options,
            maximum_concurrent_rpcs=num_threads + NUM_WAITING_CALLS,
        )
        self._calls.append(calls)
        self._servers.append(server)
        return server


def open_door(context: WorkerContext) -> RpcDoor:
    """The door of this worker, open."""
    door = RpcDoor(context)
    door.open()
    return door
