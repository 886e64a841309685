"""TLS: the certificate of the server, and the names in those of its clients."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc

from milepost import telemetry

if TYPE_CHECKING:
    from milepost.rpc.call import Context

_KINDS: Final = {"peer_dns": "dns", "peer_uri": "uri", "peer_email": "email", "peer_ip": "ip"}
"""The kinds of subject alternative names, by their names in the auth context of gRPC."""


def certificate_names(context: Context) -> frozenset[str]:
    """Return the names of the client certificate of a connection, such as ``dns:a.example``.

    TLS has verified the certificate. Without one there are no names.
    """
    peer = context.auth_context()
    return frozenset(
        f"{kind}:{value.decode(errors='replace')}"
        for found, kind in _KINDS.items()
        for value in peer.get(found, ())
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files of the server's certificate chain and key, and of its clients' authorities."""

    certificate: Path
    key: Path
    client_authorities: Path | None = None
    """If given, every connection must show a certificate of one of these."""


class _Files:
    """The files as last read; a handshake after they were replaced uses the new ones."""

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._seen = self._state()

    def read(self) -> grpc.ServerCertificateConfiguration:
        """Return what the files hold."""
        authorities = self._files.client_authorities
        return grpc.ssl_server_certificate_configuration(
            [(self._files.key.read_bytes(), self._files.certificate.read_bytes())],
            authorities.read_bytes() if authorities else None,
        )

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Return what the files hold if they are not those of last time. Never fails."""
        try:
            state = self._state()
            if state == self._seen:
                return None
            found = self.read()
        except OSError as error:
            telemetry.log.warning("TLS files not read", problem=os.strerror(error.errno or 0))
            return None
        self._seen = state
        telemetry.log.info("TLS files read again")
        return found

    def _state(self) -> list[tuple[int, int, int]]:
        """Return what differs when a file is another one."""
        files = (self._files.certificate, self._files.key, self._files.client_authorities)
        stats = [file.stat() for file in files if file is not None]
        return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Return what the port is opened with; replaced files are found without a restart.

    Raises:
        OSError: a file cannot be read.
    """
    found = _Files(files)
    return grpc.dynamic_ssl_server_credentials(
        found.read(),
        found.changed,  # type: ignore[arg-type] # None means unchanged; the stubs omit it
        require_client_authentication=files.client_authorities is not None,
    )
