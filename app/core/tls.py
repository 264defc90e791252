"""Is a certificate usable with a key? Asked when the settings are read, before anything is forked.

Opens the two files, and knows neither Gunicorn nor sockets.
"""

from __future__ import annotations

import ssl
from pathlib import Path


def check_pair(cert: str, key: str) -> None:
    """Raise ValueError with one line when ``cert`` and ``key`` cannot be served with."""
    _check_file("TLS_CERT", cert, "CERTIFICATE-----", "certificate in PEM")
    _check_file("TLS_KEY", key, "PRIVATE KEY-----", "private key in PEM")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # Without a password OpenSSL would ask for one on the terminal.
        context.load_cert_chain(cert, key, password=lambda: "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ValueError(f"the private key {key} does not belong to the certificate {cert}") from None
        raise ValueError(f"{cert} and {key} cannot be used: damaged, or a key with a password") from None


def _check_file(name: str, path: str, mark: str, what: str) -> None:
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ValueError(f"{name}: the file {path} cannot be read: {error.strerror}") from None
    if mark not in text:
        raise ValueError(f"{name}: the file {path} holds no {what}")
