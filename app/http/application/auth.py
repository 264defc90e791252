"""API keys: with ``API_KEYS`` every route but the probes needs ``Authorization: Bearer``."""

from __future__ import annotations

import hashlib

from flask import Flask, request

from app.core.errors import UnauthorizedError
from app.core.parsing import keys
from app.serve.incoming.gate import PROBES

IS_CHECKED = "forklift.key_is_checked"


def init_app(app: Flask, api_keys: tuple[str, ...]) -> None:
    """Check the key before anything else is done with a request."""
    known = [key.encode() for key in api_keys]

    @app.before_request
    def require_key() -> None:
        request.environ[IS_CHECKED] = bool(known)
        if known and request.path not in PROBES and not keys.is_known(bearer_token(request.environ), known):
            raise UnauthorizedError("a valid API key is needed: Authorization: Bearer <key>")


def bearer_token(environ: dict[str, str]) -> bytes:
    """The token as it was sent, empty where there is none. WSGI hands bytes over as Latin-1."""
    return keys.bearer_token(environ.get("HTTP_AUTHORIZATION", "").encode("latin-1"))


def caller_scope(environ: dict[str, str]) -> str:
    """What tells callers apart who share nothing: a hash of the key; keys that are not checked are none."""
    return hashlib.sha256(bearer_token(environ)).hexdigest() if environ.get(IS_CHECKED) else ""
