"""TLS: the certificate of the server, and the names in those of its clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import grpc

if TYPE_CHECKING:
    from milepost.rpc.call import Context
    from milepost.tls import TlsContent, TlsPair

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


def server_credentials(pair: TlsPair) -> grpc.ServerCredentials:
    """Return what the port is opened with; replaced files are found without a restart."""
    given = pair.renew()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        """Return the content of the files if gRPC does not have it yet. Never fails."""
        nonlocal given
        content = pair.renew()
        if content is given:
            return None
        given = content
        return _configuration(content)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(given),
        changed,  # type: ignore[arg-type] # None means unchanged; the stubs omit it
        require_client_authentication=pair.has_client_authorities,
    )


def _configuration(content: TlsContent) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(content.key, content.certificate)], content.client_authorities
    )
