"""TLS of the gRPC port, with the certificate and key of HTTP. gRPC's own threads ask for renewals."""

from __future__ import annotations

from pathlib import Path

import grpc

from app.core.errors import StartError
from app.core.logs.logging import get_logger
from app.core.settings import Settings
from app.core.system.certificates import check_pair

Stamp = tuple[int, int]

log = get_logger("rpc")


def server_credentials(settings: Settings) -> grpc.ServerCredentials | None:
    """None without TLS."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    pair = _Pair(Path(settings.tls_cert), Path(settings.tls_key))
    return grpc.dynamic_ssl_server_credentials(pair.read(), pair.renewed)


class _Pair:
    """Taken up anew when the files change; the old pair serves until the new one fits."""

    def __init__(self, cert: Path, key: Path):
        self._cert, self._key = cert, key
        self._stamps = self._look()

    def read(self) -> grpc.ServerCertificateConfiguration:
        pair = (self._key.read_bytes(), self._cert.read_bytes())
        return grpc.ssl_server_certificate_configuration([pair])

    def renewed(self) -> grpc.ServerCertificateConfiguration | None:
        """The pair where it has changed since the last handshake."""
        stamps = self._look()
        if stamps == self._stamps:
            return None
        self._stamps = stamps
        try:
            check_pair(str(self._cert), str(self._key))
            return self.read()
        except (OSError, ValueError, StartError) as error:
            log.warning("certificate_not_renewed", reason=str(error))
            return None

    def _look(self) -> list[Stamp | None]:
        return [_stamp(path) for path in (self._cert, self._key)]


def _stamp(file: Path) -> Stamp | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
