"""What a request's head alone tells before its body is kept. Main thread of a worker; pure but for the settings.

Whether a caller may come in is for the application, which answers in the form of the route: a request that it will
refuse whatever the body is given to it without one.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.parsing.keys import known_key
from app.serve.incoming.buffering import RequestBuffer

# Answered without a key, and by threads of their own, so that nothing that the others wait for delays them.
PROBES = frozenset({"/livez", "/readyz", "/health"})
SCRAPE = "/metrics"


class Gate:
    """Knows the keys; ``api_keys`` is empty where everybody may come in."""

    def __init__(self, api_keys: Sequence[str]):
        self._keys = [key.encode() for key in api_keys]

    def keeps_body(self, buffer: RequestBuffer) -> bool:
        """Whether the body of the request whose head is in ``buffer`` will be looked at."""
        if not self._keys:
            return True
        return known_key(buffer.header(b"authorization"), buffer.header(b"x-api-key"), self._keys) is not None
