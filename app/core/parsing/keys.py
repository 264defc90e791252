"""API keys as they come in requests: as a bearer token, or in Anthropic's header. Pure functions."""

from __future__ import annotations

import hmac
from collections.abc import Sequence


def bearer_token(authorization: bytes) -> bytes:
    """The token of the header ``Authorization``, as it was sent; empty where there is none."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def known_key(authorization: bytes, api_key: bytes, keys: Sequence[bytes]) -> bytes | None:
    """The key that a caller has shown in either header, ``Authorization`` first; None where neither holds one.

    Compares with every key in constant time, so that timing tells nothing of any of them.
    """
    for token in (bearer_token(authorization), api_key.strip()):
        matches = [hmac.compare_digest(token, key) for key in keys]
        if any(matches):
            return token
    return None
