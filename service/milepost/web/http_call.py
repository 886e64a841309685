"""One request of the API over HTTP, as its servicers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from multidict import MultiDict

from milepost.api.call import ApiCall
from milepost.api.prefer_header import HEADER, preferred_wait
from milepost.web.tls import certificate_names

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web
    from multidict import MultiMapping

    from milepost.access.method import Method


ACCESS_TOKEN: Final = "access_token"  # noqa: S105 - the name of a parameter
"""The parameter of the query that may hold the credential of a watch (RFC 6750, 2.3)."""


class HttpCall(ApiCall):
    """One request on its way through the checks to its servicer."""

    __slots__ = ("_token_in_query", "request")

    def __init__(
        self, method: Method, request: web.Request, *, token_in_query: bool = False
    ) -> None:
        """Describe the call of `method` by `request`, whose query may hold the credential."""
        super().__init__(method, _peer_of(request.transport))
        self.request = request
        self._token_in_query = token_in_query

    @property
    def address(self) -> str:
        """The address of the connection without its port."""
        return self.request.remote or "unknown"

    @property
    def waits(self) -> bool:
        """True if the call may wait for a change instead of just running."""
        return self.method.long_running or HEADER in self.request.headers

    @property
    def credential(self) -> str | None:
        """The credential of the request, or None if it has none.

        Several are no valid credential: which one counts would depend on who reads them.
        """
        found = self.request.headers.getall("Authorization", [])
        if self._token_in_query:
            tokens = self.request.query.getall(ACCESS_TOKEN, [])
            found = [*found, *(f"Bearer {token}" for token in tokens)]
        return (found[0] if len(found) == 1 else "") if found else None

    @property
    def parameters(self) -> MultiMapping[str]:
        """The query without a credential."""
        query = self.request.query
        if not self._token_in_query or ACCESS_TOKEN not in query:
            return query
        return MultiDict((name, text) for name, text in query.items() if name != ACCESS_TOKEN)

    def certificate_names(self) -> frozenset[str]:
        """Return the names of the client certificate of the connection."""
        return certificate_names(self.request.transport)

    @property
    def seconds_left(self) -> None:
        """HTTP has no deadlines: the caller closes the connection."""
        return

    @property
    def preferred_wait(self) -> int:
        """The seconds for which the caller prefers to wait for a change; 0 for not at all."""
        texts = self.request.headers.getall(HEADER, [])
        return preferred_wait((HEADER, text) for text in texts)


def _peer_of(transport: asyncio.BaseTransport | None) -> str:
    """Return the address of the other side, in the form of gRPC."""
    peer = None if transport is None else transport.get_extra_info("peername")
    if not peer:
        return "unknown"
    host, port = peer[:2]
    return f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
