"""Real Gunicorn servers on loopback ports, each ended by its own pid; and what tests see of their sockets."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_S = 30.0
# Several servers that start at once on two cores import torch for half a minute.
LOAD_PATIENCE_S = 120.0
# For SO_LINGER.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)


def wait_for(look: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """The first true value of ``look``."""
    end_s = time.monotonic() + patience_s
    while time.monotonic() < end_s:
        found = look()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"waited {patience_s:g} s in vain for {what}")


def unused_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def num_sockets(pid: int) -> int:
    """How many the process has open."""
    found = 0
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            found += str(fd.readlink()).startswith("socket:")
    return found


class Server:
    """One Gunicorn master with its workers; the application and its inference are doubles."""

    scheme: ClassVar[str] = "http"
    arguments: ClassVar[tuple[str, ...]] = ("-c", "tests/service/gunicorn_double.py", "tests.service.double:app")

    def __init__(self, folder: Path, environ: dict[str, str]):
        self._log = folder / "server.log"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FORKLIFT_")}
        clean.pop("CUDA_VISIBLE_DEVICES", None)
        settings = {"FORKLIFT_BIND": "127.0.0.1:0", "FORKLIFT_DEVICE": "cpu", "FORKLIFT_COMPILE": "never"}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *self.arguments],
                cwd=REPOSITORY,
                env=clean | settings | environ,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.port = 0

    def wait_until_listening(self) -> None:
        line = rf"Listening at: {self.scheme}://127\.0\.0\.1:(\d+)"
        match = wait_for(lambda: re.search(line, self.log()), "the port")
        self.port = int(match[1])

    def wait_until_ready(self, num_slots: int = 1) -> list[dict[str, Any]]:
        """The rows of the board once ``num_slots`` are ready."""

        def ready() -> list[dict[str, Any]] | None:
            rows = self.rows()
            return rows if sum(row["state"] == "ready" for row in rows) >= num_slots else None

        return wait_for(ready, f"{num_slots} ready slots", LOAD_PATIENCE_S)

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str, timeout_s: float = PATIENCE_S) -> tuple[int, Any]:
        """Status and JSON of the answer."""
        return self.request("GET", path, timeout_s=timeout_s)

    def http_connection(self, timeout_s: float) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, timeout_s: float = 30.0
    ) -> tuple[int, Any]:
        connection = self.http_connection(timeout_s)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            return response.status, json.loads(response.read())
        finally:
            connection.close()

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get("/readyz")[1]
        return rows

    def connect(self, data: bytes = b"") -> socket.socket:
        """A bare connection that has sent ``data``."""
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE_S)
        sock.sendall(data)
        return sock

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_for_exit(self, patience_s: float = PATIENCE_S) -> int:
        return self.process.wait(timeout=patience_s)

    def stop(self) -> None:
        """End the server, kindly at first."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGQUIT)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(timeout=10)


StartServer = Callable[..., Server]


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[StartServer]:
    """Starts a server with the given environment; keyword arguments become ``FORKLIFT_`` settings."""
    yield from server_starter(tmp_path)


@pytest.fixture(scope="module")
def plain_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One ready worker with default settings, for tests that leave no trace in it."""
    starter = server_starter(tmp_path_factory.mktemp("plain"))
    yield next(starter)(workers=1)
    next(starter, None)


def server_starter(folder_of_all: Path, kind: type[Server] = Server) -> Iterator[StartServer]:
    """Yields a function that starts servers of ``kind``; they are stopped when it goes on."""
    servers: list[Server] = []

    def start(environ: dict[str, str] | None = None, *, num_ready: int = 1, **settings: object) -> Server:
        named = {f"FORKLIFT_{name.upper()}": str(value) for name, value in settings.items()}
        folder = folder_of_all / str(len(servers))
        folder.mkdir()
        server = kind(folder, (environ or {}) | named)
        servers.append(server)
        if num_ready:
            server.wait_until_listening()
            server.wait_until_ready(num_ready)
        return server

    yield start
    for server in servers:
        server.stop()


class SteppingServer(Server):
    """The real application and its settings on the stepping stand-in for the engine."""

    arguments: ClassVar[tuple[str, ...]] = ("-c", "tests/service/gunicorn_stepping.py", "wsgi:app")

    def __init__(self, folder: Path, environ: dict[str, str]):
        self._jobs, self.gate = folder / "jobs", folder / "gate"
        super().__init__(folder, {"STEP_LOG": str(self._jobs), "STEP_GATE": str(self.gate)} | environ)

    def rows(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.get("/readyz")[1]["slots"]
        return rows

    def in_hand(self) -> tuple[int, int]:
        """Requests running and waiting, over all slots."""
        rows = self.rows()
        return sum(row["num_running"] for row in rows), sum(row["num_waiting"] for row in rows)

    def jobs(self, event: str) -> dict[str, int]:
        """Request ids of jobs that ``started`` or ``ended``, with their number of tokens by then."""
        lines = [line.split() for line in self._jobs.read_text().splitlines()] if self._jobs.exists() else []
        return {request_id: int(tokens) for found, request_id, tokens, _ in lines if found == event}


@pytest.fixture
def start_stepping(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers with the real application on a stand-in for the engine."""
    yield from server_starter(tmp_path, SteppingServer)
