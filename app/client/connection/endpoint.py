"""Sends requests to one server."""

from __future__ import annotations

import requests

from .call_deadline import CallDeadline, WatchedAdapter
from .exchange import Exchange
from .server_address import ServerAddress
from .server_urls import is_loopback

CONNECT_TIMEOUT_S = 10.0


class Endpoint(ServerAddress):
    """A server that is asked. Any number of threads may use it."""

    def open(
        self,
        method: str,
        path: str,
        limit_s: float,
        data: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        connect_limit_s: float = CONNECT_TIMEOUT_S,
        deadline: CallDeadline | None = None,
    ) -> Exchange:
        """Send a request; returns when head and status are there. Raises ``SetupError``, ``NoAnswerError``.

        All that comes of it ends within ``limit_s``, or with a ``deadline`` that was made for it.
        """
        deadline = deadline or CallDeadline(limit_s)
        session = requests.Session()
        for scheme in ("http://", "https://"):
            session.mount(scheme, WatchedAdapter(deadline))
        exchange = Exchange(self, self.shown_url + path, session, deadline)
        exchange.begin(
            lambda: session.request(
                method,
                self.url + path,
                data=data,
                # What is not asked for need not be unpacked, and a drop of it can be an ocean.
                headers={"Accept-Encoding": "identity", **(headers or {})},
                auth=self.authorize,
                stream=True,
                allow_redirects=False,
                timeout=(min(connect_limit_s, limit_s), limit_s),
                proxies={"http": None, "https": None, "all": None} if is_loopback(self.url) else None,  # type: ignore[dict-item]
            )
        )
        return exchange
