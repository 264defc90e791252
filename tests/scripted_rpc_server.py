"""Small gRPC servers on loopback that answer as a test says: for what a client makes of many of them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

from app.client.connection.protocol import forklift_pb2 as wire
from app.client.discovery.server_entry import ServerEntry
from tests.scripted_server import COMPLETION

SERVICE = "/forklift.v1.Forklift/"
PROBE = "/grpc.health.v1.Health/Check"
TAKEN = (("x-request-id", "r"),)


class ScriptedRpcServer:
    """``answer`` is a generator over what it is told: the context of the call. It yields messages."""

    def __init__(self, name, **fields):
        self.name, self.num_asked, self.is_alive = name, 0, True
        self.load = None
        self.answer = self.completes
        self.freed = threading.Event()
        self._server = grpc.server(ThreadPoolExecutor(8), [_Handler(self)], options=[("grpc.so_reuseport", 0)])
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.entry = ServerEntry(name, "http://127.0.0.1:1", **{"places": 4, "grpc": f"127.0.0.1:{port}", **fields})

    def serve(self, method, _messages, context):
        if method == PROBE:
            if not self.is_alive:
                self.freed.wait(30)
            yield b""
            return
        self.num_asked += 1
        if self.load is not None:
            context.set_trailing_metadata((("x-load", self.load),))
        kind = {"Complete": wire.CompleteReply, "CompleteStream": wire.CompletePiece}[method.removeprefix(SERVICE)]
        for message in self.answer(context, kind):
            yield message.SerializeToString()

    def completes(self, context, kind):
        context.send_initial_metadata(TAKEN)
        if kind is wire.CompleteReply:
            yield kind(**COMPLETION, model=self.name)
            return
        yield kind(completion="x")
        yield kind(end={**COMPLETION, "model": self.name})

    def stop(self):
        """Nobody listens any more."""
        self.freed.set()
        self._server.stop(None).wait()


class _Handler(grpc.GenericRpcHandler):
    def __init__(self, server):
        self._server = server

    def service(self, details):
        method = details.method
        return grpc.stream_stream_rpc_method_handler(
            lambda messages, context: self._server.serve(method, messages, context)
        )


def refuses(status, code, **trailers):
    """Before anything else, with the code of an error of ours."""

    def answer(context, _kind):
        context.set_trailing_metadata(
            (("forklift-code", code), *((n.replace("_", "-"), v) for n, v in trailers.items()))
        )
        context.abort(status, code)
        yield

    return answer


def breaks(*messages, is_taken=True):
    """The connection is lost behind these messages; ``is_taken``: once the call was counted."""

    def answer(context, kind):
        if is_taken:
            context.send_initial_metadata(TAKEN)
        for text in messages:
            yield kind(completion=text)
        context.abort(grpc.StatusCode.UNAVAILABLE, "connection lost")

    return answer


def hangs(server):
    def answer(context, _kind):
        context.send_initial_metadata(TAKEN)
        server.freed.wait(30)
        yield from ()

    return answer
