"""A port of its own for each replica's metrics and probes: behind a proxy, a scrape would reach any one of them.

The lowest that is free on the node, so that Prometheus can be told of them beforehand. A thread with an event loop.
"""

from __future__ import annotations

import socket
import threading

import uvicorn

from app.cluster.bridge.asgi_types import Receive, Scope, Send, response_body, response_start
from app.cluster.bridge.wsgi_bridge import WsgiBridge
from app.core.errors import StartError
from app.core.logs.logging import get_logger
from app.serve.incoming.gate import PROBES, SCRAPE

# So many replicas of one node find a port.
NUM_PORTS = 100
PATHS = PROBES | {SCRAPE}

log = get_logger("cluster")


class OnlyMetrics:
    """The application cut down to its metrics and probes."""

    def __init__(self, bridge: WsgiBridge):
        self._bridge = bridge

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PATHS:
            await self._bridge(scope, receive, send)
            return
        await send(response_start(404, [(b"content-type", b"text/plain")]))
        await send(response_body(b"this port has /metrics and the probes\n", is_last=True))


def serve_metrics(bridge: WsgiBridge, host: str, first_port: int) -> int:
    """The port on which they are shown from now on. Raises ``StartError`` where none is free."""
    sock = open_port(host, first_port)
    config = uvicorn.Config(OnlyMetrics(bridge), log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    threading.Thread(target=server.run, args=([sock],), name="metrics", daemon=True).start()
    port = int(sock.getsockname()[1])
    log.info("metrics_port", host=host, port=port)
    return port


def open_port(host: str, first_port: int) -> socket.socket:
    """A socket that listens on the lowest free port."""
    for port in range(first_port, first_port + NUM_PORTS):
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        try:
            # No SO_REUSEPORT: a port that another replica has is not free.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen()
        except OSError:
            sock.close()
        else:
            return sock
    raise StartError(f"no port from {first_port} to {first_port + NUM_PORTS - 1} is free on {host} for the metrics")
