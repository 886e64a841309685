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
    renewal = _Renewal(certificate, key, client_authorities)
    renewal.context.sni_callback = renewal.handshake
    return renewal.context


def _loaded(certificate: Path, key: Path, client_authorities: Path | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(certificate, key, password="")
    if client_authorities is not None:
        context.load_verify_locations(client_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # a resumed session would bypass a renewed list of authorities
    return context


class _Renewal:
    """Loads the files again once they are other ones.

    A new context replaces the old one as a whole, so that no old authority stays trusted, and no
    half of a pair is in use.
    """

    def __init__(self, certificate: Path, key: Path, client_authorities: Path | None) -> None:
        self._files = certificate, key, client_authorities
        self._seen = self._state()
        self.context = _loaded(*self._files)

    def handshake(self, connection: Any, _name: str | None, first: ssl.SSLContext) -> None:
        """Give a handshake the newest files. Never fails: the old ones stay in use."""
        self._look()
        if self.context is not first:
            connection.context = self.context

    def _look(self) -> None:
        try:
            state = self._state()
            if state == self._seen:
                return
            self.context = _loaded(*self._files)
        except OSError as error:  # of which SSLError is one
            reason = getattr(error, "reason", None)
            problem = "no valid pair" if reason else os.strerror(error.errno or 0)
            telemetry.log.warning("TLS files not read", problem=problem)
            return
        self._seen = state
        telemetry.log.info("TLS files read again")

    def _state(self) -> list[tuple[int, int, int]]:
        """Return what differs when a file is another one."""
        stats = [file.stat() for file in self._files if file is not None]
        return [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in stats]
