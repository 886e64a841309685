"""TLS of an HTTP port: its certificate, and the names in those of its clients."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any, Final

from milepost import telemetry

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path

_KINDS: Final = {"DNS": "dns", "URI": "uri", "email": "email", "IP Address": "ip"}
"""The kinds of subject alternative names, by their names in `ssl`."""


def certificate_names(transport: asyncio.BaseTransport | None) -> frozenset[str]:
    """Return the names of the client certificate of a connection, such as ``dns:a.example``.

    TLS has verified the certificate. Without one there are no names.
    """
    peer: Any = transport.get_extra_info("peercert") if transport is not None else None
    return frozenset(
        f"{_KINDS[kind]}:{value}"
        for kind, value in (peer or {}).get("subjectAltName", ())
        if kind in _KINDS
    )


def server_context(
    *, certificate: Path, key: Path, client_authorities: Path | None
) -> ssl.SSLContext:
    """Return the context of a port; replaced files are found at the next handshake.

    Args:
        certificate: the chain of the server.
        key: its key.
        client_authorities: if given, every connection must show a certificate of one of these.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, password="")
    if client_authorities is not None:
        context.load_verify_locations(client_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    context.sni_callback = _Renewal(certificate, key, client_authorities).handshake
    return context


class _Renewal:
    """Loads the files again once they are other ones."""

    def __init__(self, *files: Path | None) -> None:
        self._certificate, self._key, self._authorities = files
        self._files = [file for file in files if file is not None]
        self._seen = self._state()

    def handshake(self, _connection: Any, _name: str | None, context: ssl.SSLContext) -> None:
        """Look at the files before a handshake. Never fails: the old ones stay in use."""
        try:
            state = self._state()
            if state == self._seen:
                return
            context.load_cert_chain(self._certificate, self._key, password="")  # type: ignore[arg-type]
            if self._authorities is not None:
                context.load_verify_locations(self._authorities)
        except OSError as error:  # of which SSLError is one
            problem = os.strerror(error.errno) if error.errno else "no valid pair"
            telemetry.log.warning("TLS files not read", problem=problem)
            return
        self._seen = state
        telemetry.log.info("TLS files read again")

    def _state(self) -> list[tuple[int, int, int]]:
        """Return what differs when a file is another one."""
        stats = [file.stat() for file in self._files]
        return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]
