"""API keys: with ``API_KEYS`` every route but the probes needs ``Authorization: Bearer``."""

from __future__ import annotations

import hmac

from flask import Flask, request

from app.core.errors import UnauthorizedError
from app.http.request_log import PROBES


def init_app(app: Flask, api_keys: tuple[str, ...]) -> None:
    """Check the key before anything else is done with a request."""
    keys = [key.encode() for key in api_keys]

    @app.before_request
    def require_key() -> None:
        if keys and request.path not in PROBES and not is_known(bearer_token(request.environ), keys):
            raise UnauthorizedError("a valid API key is needed: Authorization: Bearer <key>")


def bearer_token(environ: dict[str, str]) -> bytes:
    """The token as it was sent, empty where there is none. WSGI hands bytes over as Latin-1."""
    scheme, _, token = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    return token.strip().encode("latin-1") if scheme.lower() == "bearer" else b""


def is_known(token: bytes, keys: list[bytes]) -> bool:
    """Compares with every key in constant time, so that timing tells nothing of any of them."""
    matches = [hmac.compare_digest(token, key) for key in keys]
    return any(matches)
