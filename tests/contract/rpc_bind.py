"""Addresses for gRPC ports of worlds; needs no gRPC."""

from __future__ import annotations

from tests.service.conftest import unused_port


def unused_address() -> str:
    """What to put into a world's settings as ``grpc_bind``."""
    return f"127.0.0.1:{unused_port()}"
