"""Where a gRPC server is, and the key that it is asked with."""

from __future__ import annotations

from ..client_errors import SetupError
from .server_address import ServerAddress

SCHEMES = {"grpc": "http", "grpcs": "https"}
DEFAULT_PORT = 50051


def is_grpc(url: str) -> bool:
    """Whether ``url`` names a gRPC port."""
    return url.strip().partition("://")[0].lower() in SCHEMES


class GrpcAddress:
    """``grpc://host:port``, or ``grpcs://`` with TLS. Raises ``SetupError``."""

    def __init__(self, url: str, api_key: str | None):
        scheme, _, rest = url.strip().partition("://")
        self._scheme = scheme.lower()
        # What makes an HTTP address a wrong one makes this one wrong, too.
        self._server = ServerAddress(f"{SCHEMES[self._scheme]}://{rest}", api_key)
        self.target = self._server.url.partition("://")[2]
        if "/" in self.target or "@" in self.target:
            raise SetupError(f"{self.shown_url!r} is no address such as grpc://127.0.0.1:{DEFAULT_PORT}")
        if ":" not in self.target.rpartition("]")[2]:
            self.target += f":{DEFAULT_PORT}"
        self._key = (api_key or "").strip()
        if not self._key.isascii():
            raise SetupError("the API key holds characters beyond ASCII, which gRPC's metadata cannot")

    @property
    def shown_url(self) -> str:
        return f"{self._scheme}://{self._server.shown_url.partition('://')[2]}"

    @property
    def is_secure(self) -> bool:
        return self._scheme == "grpcs"

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The key, where there is one."""
        return (("authorization", f"Bearer {self._key}"),) if self._key else ()

    def hidden(self, text: str) -> str:
        """``text`` without the key."""
        return self._server.hidden(text)
