"""The WSGI environment (PEP 3333) of a request that came as an ASGI scope. Pure but for standard error.

As Gunicorn makes it: names with an underscore are dropped, since ``X_Request_Id`` would be read as ``X-Request-Id``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import unquote_to_bytes

from app.cluster.bridge.asgi_types import Scope
from app.http.application.connection import CLIENT_GONE

# The body stands there whole, with its length in bytes.
_FRAMING = frozenset({b"transfer-encoding", b"content-length", b"expect"})
_OWN_KEYS = {"CONTENT_TYPE": "CONTENT_TYPE"}


def make_environ(scope: Scope, body: bytes, num_bytes: int, is_gone: Callable[[], bool]) -> dict[str, Any]:
    """``num_bytes`` is what the client declared, where that is more than ``body`` holds."""
    root = str(scope.get("root_path", "")).rstrip("/")
    host, port = (scope.get("server") or ("localhost", None))[:2]
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": _bytes_as_text(root),
        "PATH_INFO": _path_bytes(scope).decode("latin-1").removeprefix(_bytes_as_text(root)),
        "QUERY_STRING": bytes(scope["query_string"]).decode("latin-1"),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "SERVER_NAME": host,
        "SERVER_PORT": str(port or 0),
        "CONTENT_LENGTH": str(num_bytes),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.get("scheme", "http"),
        "wsgi.input": io.BytesIO(body),
        "wsgi.input_terminated": True,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        CLIENT_GONE: is_gone,
    }
    if scope.get("client"):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = scope["client"][0], str(scope["client"][1])
    environ.update(_fields(scope["headers"]))
    return environ


def _fields(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in headers:
        if name in _FRAMING or b"_" in name:
            continue
        key = name.decode("latin-1").upper().replace("-", "_")
        key = _OWN_KEYS.get(key, f"HTTP_{key}")
        text = value.decode("latin-1")
        separator = "; " if key == "HTTP_COOKIE" else ","
        fields[key] = f"{fields[key]}{separator}{text}" if key in fields else text
    return fields


def _path_bytes(scope: Scope) -> bytes:
    """As they were sent, where the server tells; text has lost those that are no UTF-8."""
    raw_path = scope.get("raw_path")
    return unquote_to_bytes(raw_path) if raw_path else str(scope["path"]).encode("utf-8", "surrogateescape")


def _bytes_as_text(path: str) -> str:
    """WSGI's text: the bytes of the path, each as one character."""
    return path.encode("utf-8", "surrogateescape").decode("latin-1")
