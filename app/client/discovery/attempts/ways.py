"""Over what many servers are asked."""

from __future__ import annotations

from typing import Literal

from ...client_errors import SetupError
from .attempt import Way
from .http_attempt import HttpWay

Over = Literal["http", "grpc"]


def way_over(over: Over, api_key: str | None) -> Way:
    """Raise ``SetupError`` for a key that cannot be sent so, and without the extra that it needs."""
    if over == "http":
        return HttpWay(api_key)
    if over != "grpc":
        raise SetupError(f"servers are asked over http or grpc, not over {over!r}")
    try:
        from .grpc_attempt import GrpcWay
    except ImportError as failure:
        text = f"calls over gRPC need the extra grpc (pip install 'forklift-serve[grpc]'): {failure}"
        raise SetupError(text) from None
    return GrpcWay(api_key)
