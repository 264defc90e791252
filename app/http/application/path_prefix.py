"""Serves everything below PATH_PREFIX, behind a proxy that shares its host with others. HTTP threads.

The probes answer without the prefix, too: whoever asks them asks this server and not the proxy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask, request

from app.core.errors import NotFoundError
from app.serve.incoming.gate import PROBES

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
IS_OUTSIDE = "forklift.is_outside_prefix"


class Prefixed:
    """Takes the prefix off the path, and notes where there is none."""

    def __init__(self, app: WsgiApp, prefix: str):
        self._app = app
        self._prefix = prefix

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == self._prefix and environ["REQUEST_METHOD"] in ("GET", "HEAD"):
            # The page's own links are relative, so its address must end with a slash.
            start_response("308 Permanent Redirect", [("Location", f"{self._prefix}/"), ("Content-Length", "0")])
            return [b""]
        if path == self._prefix or path.startswith(f"{self._prefix}/"):
            environ["SCRIPT_NAME"], environ["PATH_INFO"] = self._prefix, path[len(self._prefix) :] or "/"
        elif path not in PROBES:
            environ[IS_OUTSIDE] = True
        return self._app(environ, start_response)


def init_app(app: Flask, prefix: str) -> None:
    """Put ``app`` below ``prefix``; nothing changes where that is empty."""
    if not prefix:
        return
    app.wsgi_app = Prefixed(app.wsgi_app, prefix)  # type: ignore[method-assign]

    @app.before_request
    def require_prefix() -> None:
        if IS_OUTSIDE in request.environ:
            raise NotFoundError(f"there is no such route; everything lies below {prefix}")
