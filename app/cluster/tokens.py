"""The token without which nobody may talk to a cluster: found where Ray looks for it, or made."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

TOKEN = "RAY_AUTH_TOKEN"
TOKEN_PATH = "RAY_AUTH_TOKEN_PATH"
NUM_BYTES = 32


def token_path(environ: Mapping[str, str]) -> Path:
    """The file that Ray reads where the environment holds no token."""
    given = environ.get(TOKEN_PATH)
    return Path(given) if given else Path(environ.get("HOME", "~")).expanduser() / ".ray" / "auth_token"


def find_token(environ: Mapping[str, str]) -> str | None:
    """The token that this user has; None where there is none."""
    if given := environ.get(TOKEN, "").strip():
        return given
    try:
        return token_path(environ).read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def make_token(environ: Mapping[str, str]) -> str:
    """The token that this user has, or a new one, in a file that nobody else can read."""
    if (token := find_token(environ)) is not None:
        return token
    path = token_path(environ)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = secrets.token_hex(NUM_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token)
    return token
