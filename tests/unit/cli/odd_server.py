"""A loopback port that answers every request with bytes of a table: what is no answer of a Forklift server."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OK = b"HTTP/1.1 200 OK\r\n"
JSON = b"Content-Type: application/json\r\n"
EVENTS = b"Content-Type: text/event-stream\r\n"
CLOSE = b"Connection: close\r\n"
DRIP_S = 0.05


def whole(body: bytes, head: bytes = OK + JSON) -> bytes:
    return head + CLOSE + b"Content-Length: %d\r\n\r\n" % len(body) + body


def chunked(*bodies: bytes, head: bytes = OK + EVENTS) -> bytes:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in bodies)
    return head + CLOSE + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"


def status(line: str, body: bytes = b"", more: bytes = b"") -> bytes:
    return whole(body, f"HTTP/1.1 {line}\r\n".encode() + more)


# Every one is an error for every command that asks for more than whether anything answers.
ODD: dict[str, bytes] = {
    "an error that is a text": status("500 Internal Server Error", b'{"error": "text"}'),
    "an error that is a list": status("400 Bad Request", b'{"error": ["a", 1]}'),
    "an error of null": status("422 Unprocessable", b'{"error": null, "detail": [{"loc": ["a"]}]}'),
    "an error with a code of another kind": status(
        "404 Not Found", b'{"error": {"message": 5, "code": [1], "param": {}}}'
    ),
    "an error without a body": status("502 Bad Gateway"),
    "an error of bytes": status("500 No", b"\xff\xfe\x00\x9b\x1b[31m"),
    "an error with an escape sequence": status("500 No", b'{"error": {"message": "\\u001b[31mred\\u009b"}}'),
    "a status text with an escape sequence": status("500 \x1b[31mNo"),
    "a page with 200": whole(b"<html><title>Log in</title></html>", OK + b"Content-Type: text/html\r\n"),
    "nothing with 200": whole(b""),
    "no content": b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
    "a text": whole(b'"text"'),
    "null": whole(b"null"),
    "a number": whole(b"5"),
    "a list": whole(b"[1, 2]"),
    "an empty object": whole(b"{}"),
    "nan": whole(b'{"data": NaN}'),
    "json that nests too deeply": whole(b"[" * 200_000),
    "json cut in the middle": OK + JSON + b"Content-Length: 5000\r\n\r\n" + b'{"completion": "abc',
    "json in another encoding": whole('{"a": "ö"}'.encode("utf-16")),
    "bad gzip": whole(b"this is no gzip", OK + JSON + b"Content-Encoding: gzip\r\n"),
    "cut gzip": whole(gzip.compress(b'{"a": 1}' * 900)[:40], OK + JSON + b"Content-Encoding: gzip\r\n"),
    "a redirect": status("302 Found", more=b"Location: http://127.0.0.1:1/login\r\n"),
    "a redirect to itself": status("307 Temporary Redirect", more=b"Location: /complete\r\n"),
    "a redirect to nowhere": status("301 Moved", more=b"Location: \r\n"),
    "no http": b"SSH-2.0-OpenSSH_9.6\r\n",
    "nothing at all": b"",
    "a head that ends": b"HTTP/1.1 200 OK\r\nContent-",
    "a header of a megabyte": OK + b"X: " + b"a" * 2**20 + b"\r\n\r\n",
    "a thousand headers": OK + b"".join(b"X-%d: 1\r\n" % i for i in range(1000)) + b"\r\n",
    "a length that is none": OK + b"Content-Length: many\r\n\r\n{}",
    "a negative length": OK + b"Content-Length: -5\r\n\r\n{}",
    "a chunk that is none": OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "a chunk cut in the middle": OK + EVENTS + b"Transfer-Encoding: chunked\r\n\r\nff\r\ndata: {",
    "an event that is no json": chunked(b"data: hello\n\n"),
    "an event that is a list": chunked(b"data: [1]\n\n"),
    "an event of another kind": chunked(b'data: {"completion": 5, "response": {}}\n\n'),
    "an event of bytes": chunked(b"data: \xff\xfe\n\n"),
    "a stream without an end": chunked(b'data: {"completion": "x", "response": "x"}\n\n'),
    "an end of another kind": chunked(b'data: {"completion": "", "response": "", "usage": "none"}\n\ndata: [DONE]\n\n'),
}


class OddServer:
    """``answer`` is what the next connections get; ``drip_s`` the pause between its bytes; ``requests`` what came."""

    def __init__(self, answer: bytes = b"", drip_s: float = 0.0):
        self.answer, self.drip_s = answer, drip_s
        self.requests: list[bytes] = []
        self._stopped = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._accept)
        self._threads: list[threading.Thread] = []
        self._thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with sock, suppress(OSError):
            sock.settimeout(10)
            self.requests.append(read_request(sock))
            if not self.drip_s:
                sock.sendall(self.answer)
                return
            for i in range(len(self.answer)):
                if self._stopped.wait(self.drip_s):
                    return
                sock.sendall(self.answer[i : i + 1])

    def stop(self) -> None:
        self._stopped.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in (self._thread, *self._threads):
            thread.join(20)


def read_request(sock: socket.socket) -> bytes:
    """Head and body."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = sock.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lengths = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")]
    while lengths and len(body) < int(lengths[0]):
        body += sock.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def odd_server(answer: bytes = b"", drip_s: float = 0.0) -> Iterator[OddServer]:
    server = OddServer(answer, drip_s)
    try:
        yield server
    finally:
        server.stop()


DETAILS = {
    "finish_reason": "stop",
    "usage": {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "timings": {"queue_ms": 1.0, "ttft_ms": 2.0, "total_ms": 3.0},
    "model": "m",
    "request_id": "r",
    "logprobs": [{"id": 1, "token": "x", "logprob": -1.0, "bytes": [120], "top_logprobs": []}],
    "choices": [{"completion": "x", "finish_reason": "stop", "logprobs": None}],
    "infills": ["x"],
    "history": [["a", "b"]],
    "completion": "x",
    "response": "x",
}


def wait_for_requests(server: OddServer, count: int) -> None:
    end_s = time.monotonic() + 20
    while len(server.requests) < count and time.monotonic() < end_s:
        time.sleep(0.01)


def events_of(*events: object, end: str = "\n\n", field: str = "data: ") -> bytes:
    """A stream of these events and its end, with other line ends where asked for."""
    return "".join(f"{field}{json.dumps(one)}{end}" for one in events).encode() + f"{field}[DONE]{end}".encode()
