"""A server that is known by its URL alone: what a caller can do with it, and what it tells of itself."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import requests

PATIENCE_S = 120
# More tokens than a test waits for.
LONG = {"prompt": "def f(", "max_new_tokens": 3500, "ignore_eos": True}


@dataclass(frozen=True)
class Target:
    """``ca`` is the file of a certificate authority where the URL's certificate needs one.

    ``looks``: where each process behind the URL tells of itself, if the URL leads to any one of several.
    """

    url: str
    key: str | None = None
    ca: str | None = None
    body_timeout_s: float = 20.0
    looks: tuple[str, ...] = ()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        """A request on a connection of its own."""
        headers = {**self.headers, **options.pop("headers", {})}
        options.setdefault("timeout", PATIENCE_S)
        return requests.request(method, self.url + path, headers=headers, verify=self.ca or True, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, **options: Any) -> requests.Response:
        return self.request("POST", path, **options)

    def connect(self) -> socket.socket:
        """A bare connection."""
        parts = urlsplit(self.url)
        host, port = parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme]
        sock = socket.create_connection((host, port), timeout=PATIENCE_S)
        if parts.scheme == "https":
            return ssl.create_default_context(cafile=self.ca).wrap_socket(sock, server_hostname=host)
        return sock

    def begin(self, path: str, body: bytes = b"", length: int | None = None, **headers: str) -> socket.socket:
        """A connection on which a POST was begun; ``length``: what its head declares."""
        parts = urlsplit(self.url)
        fields = {
            "Host": parts.netloc,
            "Content-Type": "application/json",
            **self.headers,
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        if "Transfer-Encoding" not in fields:
            fields["Content-Length"] = str(len(body) if length is None else length)
        head = [f"POST {parts.path}{path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
        sock = self.connect()
        sock.sendall("\r\n".join(head).encode() + b"\r\n\r\n" + body)
        return sock

    # what it tells of itself

    def rows(self) -> list[dict[str, Any]]:
        """The slots of every process."""
        urls = self.looks or (self.url,)
        answers = [requests.get(f"{url}/readyz", verify=self.ca or True, timeout=PATIENCE_S) for url in urls]
        return [row for answer in answers for row in answer.json()["slots"]]

    def is_idle(self) -> bool:
        """Whether no process behind the URL has a sequence in hand."""
        return not self.is_busy()

    def is_busy(self) -> bool:
        return any(_taken(row) for row in self.rows())

    def wait_until(self, condition: Callable[[], bool], what: str, patience_s: float = 30.0) -> float:
        """Seconds until ``condition``, which comes within ``patience_s``."""
        begun_s = time.monotonic()
        while not condition():
            assert time.monotonic() < begun_s + patience_s, f"waited {patience_s:g} s in vain until {what}"
            time.sleep(0.05)
        return time.monotonic() - begun_s


def _taken(row: dict[str, Any]) -> int:
    return int(row["num_running"]) + int(row["num_waiting"])


def read_answer(sock: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and the bytes of the body up to the connection's end or its declared length."""
    with closing(sock):
        data = b""
        with suppress(ConnectionResetError):
            while not _is_whole(data) and (piece := sock.recv(65_536)):
                data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(_field(line) for line in lines)
    return int(status_line.split()[1]), fields, body


def _is_whole(data: bytes) -> bool:
    head, end, body = data.partition(b"\r\n\r\n")
    lengths = [
        value for name, value in map(_field, head.decode("latin-1").split("\r\n")[1:]) if name == "content-length"
    ]
    return bool(end and lengths) and len(body) >= int(lengths[0])


def _field(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.lower(), value.strip()


def events(response: requests.Response) -> Iterator[Any]:
    """The events of a streamed answer as they come; comments are left out."""
    for line in response.iter_lines(chunk_size=1):
        if line.startswith(b"data: "):
            text = line.removeprefix(b"data: ").decode()
            yield text if text == "[DONE]" else json.loads(text)


def assert_error(response: requests.Response, status: int, code: str, param: str | None = None) -> dict[str, Any]:
    """The answer is the error envelope and nothing else; returns its ``error``."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert (body["error"]["code"], body["error"]["param"]) == (code, param)
    assert body["request_id"] == response.headers["X-Request-Id"]
    error: dict[str, Any] = body["error"]
    return error
