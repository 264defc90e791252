"""A certificate authority and files of certificates, for tests that speak TLS."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """One certificate with its key, as files, and a client's context that trusts it."""

    cert: Path
    key: Path
    authority: Path
    context: ssl.SSLContext

    @property
    def settings(self) -> dict[str, str]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}


def make_pair(folder: Path, authority: trustme.CA | None = None) -> Pair:
    """A new pair for 127.0.0.1 and localhost in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    authority = authority or trustme.CA()
    issued = authority.issue_cert("127.0.0.1", "localhost")
    pair = Pair(folder / "tls.crt", folder / "tls.key", folder / "ca.crt", ssl.create_default_context())
    authority.cert_pem.write_to_path(str(pair.authority))
    pair.key.write_bytes(issued.private_key_pem.bytes())
    pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    authority.configure_trust(pair.context)
    return pair
