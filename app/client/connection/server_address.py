"""Where a server is, and the key that it is asked with."""

from __future__ import annotations

import re
from contextlib import suppress

import requests

from ..client_errors import SetupError
from .server_urls import checked_url, is_loopback, shown_url

# Shorter keys stand in ordinary words.
LEAST_HIDDEN = 6
NOT_IN_KEY = re.compile(r"[\x00-\x1f\x7f]")


class ServerAddress:
    """Where a server is and with which key it is asked. Raises ``SetupError``. Any number of threads may use it."""

    def __init__(self, url: str, api_key: str | None = None):
        self.url = checked_url(url)
        self.shown_url = shown_url(self.url)
        self.authorize = None if not (api_key and api_key.strip()) else Bearer(api_key)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.shown_url!r})"

    def hidden(self, text: str) -> str:
        """``text`` without the key, which a library, a proxy or a server may repeat."""
        return text if self.authorize is None else self.authorize.hidden(text)

    def proxy(self) -> str | None:
        """The proxy that the environment puts before the server, without its password."""
        if is_loopback(self.url):
            return None
        with suppress(ValueError):
            found = requests.utils.select_proxy(self.url, requests.utils.get_environ_proxies(self.url))
            return shown_url(found) if found else None
        return None


class Bearer:
    """Sets the key, in UTF-8, where ``requests`` lets its own ``auth`` win over ``~/.netrc``. Shows it nowhere."""

    def __init__(self, key: str):
        self._key = key.strip()
        if NOT_IN_KEY.search(self._key):
            raise SetupError("the API key holds a line break or another control character")
        try:
            self._value = b"Bearer " + self._key.encode()
        except UnicodeEncodeError:
            raise SetupError("the API key is not text in UTF-8") from None

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._value  # type: ignore[assignment]
        return request

    def __repr__(self) -> str:
        return "Bearer [key]"

    def hidden(self, text: str) -> str:
        if len(self._key) < LEAST_HIDDEN:
            return text
        for one in {self._key, self._key.encode().decode("latin-1"), repr(self._key)[1:-1]}:
            text = text.replace(one, "[key]")
        return text
