"""Is a certificate usable with a key? Asked when the settings are read, before anything is forked.

Opens the two files, and knows neither Gunicorn nor sockets.
"""

from __future__ import annotations

import ssl

from app.core.system.small_files import read_small_file, why_unreadable

MAX_PEM_BYTES = 1_000_000


def check_pair(cert: str, key: str) -> None:
    """Raise ValueError with one line when ``cert`` and ``key`` cannot be served with."""
    _check_file("TLS_CERT", cert, "CERTIFICATE-----", "certificate in PEM")
    _check_file("TLS_KEY", key, "PRIVATE KEY-----", "private key in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(cert, key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the private key {key} does not belong to the certificate {cert}") from None
        raise ValueError(f"{cert} and {key} cannot be used: damaged, or a key with a password") from None


def no_password() -> str:
    """For every call that reads a key: without a password OpenSSL asks for one on the terminal, and waits."""
    return ""


def _check_file(name: str, path: str, mark: str, what: str) -> None:
    try:
        text = read_small_file(path, MAX_PEM_BYTES).decode("utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{name}: the file {path} cannot be read: {why_unreadable(path, error)}") from None
    if mark not in text:
        raise ValueError(f"{name}: the file {path} holds no {what}")
