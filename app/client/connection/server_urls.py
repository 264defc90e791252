"""Addresses of servers, and why one cannot be reached."""

from __future__ import annotations

import ipaddress
import re
from contextlib import suppress
from urllib.parse import urlsplit, urlunsplit

from ..client_errors import SetupError

NOT_IN_URL = re.compile(r"[\x00-\x20\x7f]")


def checked_url(url: str) -> str:
    """Without blanks around it and a slash at its end. Raises ``SetupError``."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError as failure:
        raise SetupError(f"{shown_url(url)!r} is not a URL: {failure}") from None
    if NOT_IN_URL.search(url) or not is_whole or parts.query or parts.fragment:
        raise SetupError(f"{shown_url(url)!r} is not a URL such as http://127.0.0.1:5000")
    return url


def shown_url(url: str) -> str:
    """``url`` without a user and password."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if "@" in parts.netloc:
            return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        return url
    return re.sub(r"//[^/]*@", "//", url)


def is_loopback(url: str) -> bool:
    """Whether the host is this machine by its name or address."""
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_unspecified


def reason(error: BaseException) -> str:
    """Why a connection failed, in one line, without the library's wrapping."""
    for _ in range(20):
        cause = _cause(error)
        if cause is None:
            break
        error = cause
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _cause(error: BaseException) -> BaseException | None:
    """urllib3 keeps what it met in ``reason``, others in the chain."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):
        return inner
    if error.args and isinstance(error.args[0], BaseException):
        return error.args[0]
    return error.__cause__ or error.__context__
