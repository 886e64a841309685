"""One request of the API over HTTP, as its servicers see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.api.call import ApiCall
from milepost.api.prefer_header import HEADER, preferred_wait
from milepost.web.tls import certificate_names

if TYPE_CHECKING:
    import asyncio

    from aiohttp import web

    from milepost.access.method import Method


class HttpCall(ApiCall):
    """One request on its way through the checks to its servicer."""

    __slots__ = ("request",)

    def __init__(self, method: Method, request: web.Request) -> None:
        """Describe the call of `method` by `request`."""
        super().__init__(method, _peer_of(request.transport))
        self.request = request

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
        return (found[0] if len(found) == 1 else "") if found else None

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
