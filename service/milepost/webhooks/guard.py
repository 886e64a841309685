"""The way to a receiver: resolve its name, check every address, connect to nothing else.

Three checks, so that no single one has to be perfect: all answers of the resolver are judged
before anything else happens; each address once more when its socket is made, just before it is
connected; and the peer of the connection, before the first byte is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

from aiohttp import ClientConnectorError, ClientError, ClientTimeout, TCPConnector
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler

from milepost.domain.callback_url import (
    Address,
    CallbackRules,
    CallbackUrl,
    RefusedUrl,
    address_problem,
    unmapped,
)

if TYPE_CHECKING:
    from aiohttp import AddrInfoType, ClientRequest, StreamReader
    from aiohttp.connector import Connection
    from aiohttp.http_parser import RawResponseMessage
    from aiohttp.tracing import Trace

LookUp: TypeAlias = Callable[[str, int], Iterable[str]]
"""Takes a name and a port, returns addresses. May block; raises OSError."""

RESOLVE_LIMIT: Final = timedelta(seconds=2)
RESOLVE_THREADS: Final = 16
ADDRESSES_TRIED: Final = 8
"""Of one name. All its addresses are judged, but not all of a thousand are knocked at."""
HEAD_BYTES: Final = 65_536
"""Of status lines and headers, interim answers (1xx) included."""
RECEIVE_BYTES: Final = 16_384
"""That the system keeps for us of what a receiver sends. Linux doubles it for its own needs."""
_FINAL_STATUS: Final = 200


class Unresolvable(Exception):
    """The name has no address at this moment. Another time it may."""


class ForbiddenPeer(ClientError, PermissionError):
    """What was about to be contacted, or was, is not one of the checked addresses.

    An OSError, like every other reason why there is no socket: aiohttp expects no others there.
    """


class HeadTooLong(ClientError):
    """The receiver sent more headers than anybody needs."""


class Resolver:
    """Turns a callback URL into addresses of which every one may be contacted."""

    def __init__(
        self,
        rules: CallbackRules,
        *,
        look_up: LookUp | None = None,
        limit: timedelta = RESOLVE_LIMIT,
        threads: int = RESOLVE_THREADS,
    ) -> None:
        """Resolve with `look_up` (by default as the system does) in at most `threads` threads."""
        self._rules = rules
        self._look_up = look_up or ask_system
        self._limit = limit.total_seconds()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def resolve(self, url: CallbackUrl) -> list[Address]:
        """Return the addresses of the host of `url`, at least one. Nothing is remembered.

        Raises:
            RefusedUrl: At least one address may not be contacted. Final.
            Unresolvable: There is no answer in time, or it is empty. To be tried again.
        """
        addresses = [url.address] if url.address else await self._ask(url.host, url.port)
        if any(address_problem(address, self._rules) for address in addresses):
            # Without the address: what the names of this network stand for is nobody's business.
            raise RefusedUrl("has a host that stands for an address that is not public")
        return addresses

    def close(self) -> None:
        """Nothing more is looked up. A lookup that is stuck is left to its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            # A thread that has begun cannot be stopped, only given up: their number is the bound.
            async with asyncio.timeout(self._limit):
                found = await loop.run_in_executor(self._threads, self._answers, host, port)
        except (TimeoutError, OSError, ValueError) as error:
            raise Unresolvable(host) from error
        if not found:
            raise Unresolvable(host)
        return found

    def _answers(self, host: str, port: int) -> list[Address]:
        return [ip_address(text) for text in dict.fromkeys(self._look_up(host, port))]


def ask_system(host: str, port: int) -> Iterable[str]:
    """Return what the system says about `host`, as an absolute name: no search list is tried."""
    answers = socket.getaddrinfo(f"{host}.", port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


_read_address: Final = functools.lru_cache(maxsize=4_096)(ip_address)


class StatusChange:
    """The addresses that were checked for one attempt, and nothing beside them."""

    def __init__(self, addresses: Iterable[Address], rules: CallbackRules) -> None:
        """Let only `addresses` through, as far as `rules` allow them."""
        self._addresses = tuple(addresses)
        self._rules = rules

    def results(self, host: str, port: int) -> list[ResolveResult]:
        """Return the addresses in the form in which aiohttp takes them from a resolver."""
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,  # noqa: PLR2004
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses[:ADDRESSES_TRIED]
        ]

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Return a socket for the address in `info`, which is connected next.

        Raises:
            ForbiddenPeer: It is not one of the checked addresses, or it is not allowed.
        """
        family, kind, protocol, _, address = info
        self.check(address)
        opened = socket.socket(family, kind, protocol)
        # Otherwise the system takes megabytes from whoever sends them, and TLS keeps up with it.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return opened

    def check(self, peer: tuple[object, ...] | None) -> None:
        """Do nothing if the socket address `peer` is one of the checked ones.

        Raises:
            ForbiddenPeer: It is not.
        """
        address = _read_address(str(peer[0])) if peer else None
        known = address and unmapped(address) in map(unmapped, self._addresses)
        if address is None or not known or address_problem(address, self._rules):
            raise ForbiddenPeer


_passage: Final[ContextVar[StatusChange]] = ContextVar("milepost_passage")


@contextlib.contextmanager
def through(passage: StatusChange) -> Iterator[None]:
    """Let this task, and those that it starts, connect through `passage` and in no other way."""
    token = _passage.set(passage)
    try:
        yield
    finally:
        _passage.reset(token)


class _Answers(AbstractResolver):
    """Hands the checked addresses to aiohttp."""

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - all are wanted
    ) -> list[ResolveResult]:
        return _passage.get().results(host, port)

    async def close(self) -> None:
        pass


class _BoundedResponse(ResponseHandler):
    """Takes at most `HEAD_BYTES` before the answer begins, and has no patience after its end."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._room = HEAD_BYTES
        self._answered = False

    def close(self) -> None:
        # A connection that is closed politely lives on until the receiver has read what is still to
        # be sent to it, and TLS reads on until the receiver says good-bye, for up to 30 seconds.
        self.abort()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        self._answered = self._answered or data[0].code >= _FINAL_STATUS
        super().feed_data(data, size)

    def data_received(self, data: bytes) -> None:
        head, rest = (b"", data) if self._answered else (data[: self._room], data[self._room :])
        self._room -= len(head)
        if head:
            super().data_received(head)
        if self._answered:
            if rest:
                super().data_received(rest)
        elif self._room == 0 and self.exception() is None:
            self.set_exception(HeadTooLong())
            if self.transport is not None:
                self.transport.abort()


class GuardedConnector(TCPConnector):
    """Makes one connection for each attempt, `through` its passage; none is used again.

    Without a passage there is no connection. How many there are at once is for the caller to bound.
    """

    def __init__(self) -> None:
        """Remember nothing: neither addresses nor connections."""
        super().__init__(
            resolver=_Answers(),
            socket_factory=lambda info: _passage.get().open_socket(info),
            use_dns_cache=False,
            force_close=True,
            limit=0,
        )
        # aiohttp has no other way to bound the size of headers as a whole.
        self._factory = functools.partial(  # type: ignore[assignment]
            _BoundedResponse, loop=self._loop
        )

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - of aiohttp
    ) -> Connection:
        """Return a connection whose peer is one of the checked addresses."""
        try:
            connection = await super().connect(req, traces, timeout)
        except ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenPeer):
                raise error.os_error from None
            raise
        try:
            transport = connection.transport
            _passage.get().check(transport.get_extra_info("peername") if transport else None)
        except ForbiddenPeer:
            connection.close()
            raise
        return connection
