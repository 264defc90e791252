"""Small HTTP servers on loopback that answer as a test says: for what a client makes of many servers."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from app.client.discovery.server_entry import ServerEntry

COMPLETION = {
    "completion": "x",
    "finish_reason": "stop",
    "usage": {
        "prompt_tokens": 1,
        "completion_tokens": 1,
        "total_tokens": 2,
        "prompt_tokens_details": {"cached_tokens": 0},
    },
    "timings": {"queue_ms": 1.0, "ttft_ms": 2.0, "total_ms": 3.0},
    "request_id": "r",
}
# What a handler does in place of an answer.
HANGS_UP, HANGS, STALLS = object(), object(), object()


class ScriptedServer:
    """Answers with ``answer``: a function of the path and body, which gives status, headers and body."""

    def __init__(self, name, **fields):
        self.name, self.num_asked, self.is_alive = name, 0, True
        self.answer = self.completes
        self.page = lambda _path: (200, {}, b"{}")
        self.freed = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                if not server.is_alive:
                    server.freed.wait(30)
                server._send(self, server.page(self.path))

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                server.num_asked += 1
                server._send(self, server.answer(self.path, json.loads(body)))

            def log_message(self, *_arguments):
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.entry = ServerEntry(name, f"http://127.0.0.1:{self._http.server_port}", **{"places": 4, **fields})

    def _send(self, handler, answer):
        if answer is HANGS:
            self.freed.wait(30)
        if answer is STALLS:
            # One event of a stream, and nothing more.
            handler.send_response(200)
            handler.end_headers()
            handler.wfile.write(b'data: {"completion": "y"}\n\n')
            handler.wfile.flush()
            self.freed.wait(30)
        if answer in (HANGS, HANGS_UP, STALLS):
            handler.close_connection = True
            return
        status, headers, body = answer
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    def completes(self, _path, _body):
        return 200, {}, json.dumps({**COMPLETION, "model": self.name}).encode()

    def stop(self):
        """Nobody listens any more."""
        self.freed.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def refuses(status, code, **headers):
    body = json.dumps({"error": {"message": code, "type": "t", "param": None, "code": code}}).encode()
    return lambda *_: (status, {name.replace("_", "-"): value for name, value in headers.items()}, body)


def streams(*lines):
    return lambda *_: (200, {"Content-Type": "text/event-stream"}, "".join(lines).encode())
