"""TLS of an HTTP port: its certificate, and the names in those of its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    import ssl

    from milepost.tls import TlsPair

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


def server_context(pair: TlsPair) -> ssl.SSLContext:
    """Return the context of a port; replaced files are found at the next handshake.

    A new context replaces the old one as a whole, so that no old authority stays trusted, and no
    half of a pair is in use.
    """

    def handshake(connection: Any, _name: str | None, first: ssl.SSLContext) -> None:
        """Give a handshake the newest files. Never fails: the old ones stay in use."""
        context = pair.renew().context
        if context is not first:
            connection.context = context

    context = pair.renew().context
    context.sni_callback = handshake
    return context
