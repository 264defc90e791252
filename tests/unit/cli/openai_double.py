"""A small real HTTP server that answers as OpenAI-style servers do, well or badly, over a loopback port."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Handler(BaseHTTPRequestHandler):
    """``server.behave`` names what happens to the next requests; ``server.seen`` holds their bodies.

    ``server.pages`` says what a GET answers instead of a list of models.
    """

    protocol_version = "HTTP/1.1"
    server: Any

    def do_GET(self) -> None:
        self.server.keys.append(self.headers.get("Authorization"))
        if self.path in self.server.missing:
            self._whole(404, {"error": {"message": "no such route"}})
            return
        models = {"object": "list", "data": [{"id": "first"}, {"id": "second"}]}
        self._whole(200, self.server.pages.get(self.path, models))

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        self.server.keys.append(self.headers.get("Authorization"))
        getattr(self, f"_{self.server.behave}")(body)
        self.close_connection = True

    def _well(self, body: dict[str, Any]) -> None:
        if body.get("stream"):
            self._stream([*self._events(body), b"data: [DONE]\n\n"])
        else:
            self._whole(200, {"choices": [{"text": "x"}], "usage": self._usage(body)})

    def _busy(self, _body: dict[str, Any]) -> None:
        self._whole(503, {"error": {"message": "try in 7 s", "code": "overloaded"}})

    def _mute(self, _body: dict[str, Any]) -> None:
        self.server.released.wait(30)

    def _early(self, body: dict[str, Any]) -> None:
        self._stream(self._events(body))

    def _unmarked(self, body: dict[str, Any]) -> None:
        """As `transformers serve` ends a stream."""
        end = b'data: {"choices": [{"text": "", "finish_reason": "length"}]}\n\n'
        self._stream([*self._events(body), end])

    def _broken(self, body: dict[str, Any]) -> None:
        error = b'data: {"error": {"message": "no memory", "code": "internal_error"}}\n\n'
        self._stream([self._events(body)[0], error])

    def _native(self, body: dict[str, Any]) -> None:
        """What /complete and /chat stream: the last event has everything but text."""
        key = "response" if self.path == "/chat" else "completion"
        usage = {
            **self._usage({"max_tokens": 2, **body}),
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
        }
        timings = {"queue_ms": 0.1, "ttft_ms": 20.0, "total_ms": 40.0}
        end = {key: "", "finish_reason": "stop", "usage": usage, "timings": timings, "model": "m", "request_id": "r"}
        events = [{key: "né"}, {key: "w\n"}, end]
        self._stream([*(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events), b"data: [DONE]\n\n"])

    def _apart(self, body: dict[str, Any]) -> None:
        """What /v1/chat/completions streams of a model that thinks and calls; with results it answers."""
        called = [
            {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}},
            {"index": 0, "function": {"arguments": '{"at": "x\x1b"}'}},
        ]
        has_results = body["messages"][-1]["role"] == "tool"
        deltas = [{"content": "It is "}, {"content": "5."}] if has_results else [{"reasoning_content": "Hm. I look."}]
        deltas += [] if has_results else [{"tool_calls": [one]} for one in called]
        events: list[Any] = [{"choices": [{"index": 0, "delta": one, "finish_reason": None}]} for one in deltas]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        usage = {**self._usage({"max_tokens": 4, **body}), "total_tokens": 9}
        events.append({"choices": [], "model": "m", "usage": usage | {"prompt_tokens_details": {"cached_tokens": 0}}})
        self._stream([*(b"data: " + json.dumps(one).encode() + b"\n\n" for one in events), b"data: [DONE]\n\n"])

    def _drip(self, _body: dict[str, Any]) -> None:
        """A text without end, until the client leaves."""
        try:
            self._stream(b'data: {"response": "drip "}\n\n' for _ in iter(int, 1))
        except OSError:
            self.server.left.set()

    def _page(self, _body: dict[str, Any]) -> None:
        self.send_response(502)
        self.send_header("Content-Length", "15")
        self.end_headers()
        self.wfile.write(b"<p>bad gateway\n")

    def _events(self, body: dict[str, Any]) -> list[bytes]:
        events: list[Any] = [{"choices": [{"text": "ab"}]} for _ in range(body["max_tokens"] // 2)]
        events.append({"choices": [], "usage": self._usage(body)})
        return [b"data: " + json.dumps(event).encode() + b"\n\n" for event in events]

    @staticmethod
    def _usage(body: dict[str, Any]) -> dict[str, int]:
        text = body.get("prompt") or body["messages"][0]["content"]
        return {"prompt_tokens": 5 + 3 * len(text.split()), "completion_tokens": body["max_tokens"]}

    def _stream(self, events: Iterable[bytes]) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            # Cut in the middle: a chunk's end is no event's end.
            for part in (event[:9], event[9:]):
                self.wfile.write(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                self.wfile.flush()
            time.sleep(0.002)
        self.wfile.write(b"0\r\n\r\n")

    def _whole(self, status: int, answer: Any) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_args: Any) -> None:
        """Tests are quiet."""


@contextmanager
def running_double() -> Iterator[Any]:
    """The server, with its ``url``."""
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.behave, server.seen, server.keys, server.released = "well", [], [], threading.Event()
    server.left, server.missing, server.pages = threading.Event(), set(), {}
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
