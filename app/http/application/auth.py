"""API keys: with ``API_KEYS`` every route but the probes needs one, as a bearer token or in Anthropic's header."""

from __future__ import annotations

from flask import Flask, request

from app.core.errors import UnauthorizedError
from app.core.parsing.keys import known_key
from app.http.application.connection import CALLERS_KEY
from app.serve.incoming.gate import PROBES


def init_app(app: Flask, api_keys: tuple[str, ...]) -> None:
    """Check the key before anything else is done with a request."""
    known = [key.encode() for key in api_keys]

    @app.before_request
    def require_key() -> None:
        key = known_key(_header("HTTP_AUTHORIZATION"), _header("HTTP_X_API_KEY"), known)
        request.environ[CALLERS_KEY] = key
        if known and key is None and request.path not in PROBES:
            raise UnauthorizedError("a valid API key is needed: Authorization: Bearer <key>")


def _header(name: str) -> bytes:
    """A header as it was sent, empty where there is none. WSGI hands bytes over as Latin-1."""
    return str(request.environ.get(name, "")).encode("latin-1")
