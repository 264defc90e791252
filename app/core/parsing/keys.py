"""API keys as they come in requests. Pure functions."""

from __future__ import annotations

import hmac
from collections.abc import Sequence


def bearer_token(authorization: bytes) -> bytes:
    """The token of the header ``Authorization``, as it was sent; empty where there is none."""
    scheme, _, token = authorization.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def is_known(token: bytes, keys: Sequence[bytes]) -> bool:
    """Compare with every key in constant time, so that timing tells nothing of any of them."""
    matches = [hmac.compare_digest(token, key) for key in keys]
    return any(matches)
