"""The whole product: real Gunicorn, the real application, the real engine, small or demo models."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests

from tests.service.conftest import Server, StartServer, server_starter


class Forklift(Server):
    """``gunicorn wsgi:app`` as users start it."""

    arguments: ClassVar[tuple[str, ...]] = ("wsgi:app",)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def rows(self) -> list[dict[str, Any]]:
        return self.get("/readyz")[1]["slots"]

    def post(self, path: str, **options: Any) -> requests.Response:
        return requests.post(self.url + path, timeout=60, **options)

    def log_lines(self, event: str) -> list[dict[str, Any]]:
        """The server's log lines of one kind."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line.get("event") == event]


class Stream:
    """A streamed completion, read by a thread of its own."""

    def __init__(self, server: Forklift, num_tokens: int, **fields: Any):
        self.lines: list[str] = []
        self.error: Exception | None = None
        body = {"prompt": "def f(", "max_new_tokens": num_tokens, "ignore_eos": True, "stream": True, **fields}
        self._response = server.post("/complete", json=body, stream=True)
        self.slot = int(self._response.headers["X-Worker"])
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        try:
            for line in self._response.iter_lines(chunk_size=1):
                if line:
                    self.lines.append(line.decode())
        except requests.RequestException as error:
            self.error = error

    def wait(self) -> list[str]:
        self._thread.join(60)
        assert not self._thread.is_alive(), "the stream did not end"
        return self.lines


@pytest.fixture
def start_forklift(tmp_path: Path) -> Iterator[StartServer]:
    """Starts servers; keyword arguments become ``FORKLIFT_`` settings."""
    yield from server_starter(tmp_path, Forklift)
