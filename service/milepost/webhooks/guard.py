"""The address guard: resolve a host, check every address, connect to no other.

Addresses are checked three times, so that no single check has to be perfect: all answers of the
resolver before anything else happens, each address again when its socket is created, and the peer
of the connection before the first byte is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
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
"""Function from a name and a port to addresses. It may block, and raises OSError."""

RESOLVE_TIMEOUT: Final = timedelta(seconds=2)
RESOLVE_THREADS: Final = 16
MAX_CONNECT_ATTEMPTS: Final = 8
"""Number of addresses of one name that are tried. All of its addresses are checked."""
HEAD_BYTES: Final = 65_536
"""Bound of status lines and headers, interim responses (1xx) included."""
RECEIVE_BYTES: Final = 16_384
"""Receive buffer of a socket. Linux doubles it for its own needs."""
AIOHTTP_CHANGED: Final = "aiohttp changed: the size of response headers cannot be bounded"
_FINAL_STATUS: Final = 200
_END_OF_HEAD: Final = re.compile(rb"\n\r?\n")
_MAX_SPLIT_END: Final = 2
"""Bytes at the end of received data that may be the beginning of such an end."""


class Unresolvable(Exception):
    """The name has no address now. It may have one later."""


class ForbiddenPeer(ClientError, PermissionError):
    """The peer of a connection, or the address of a new socket, is not a checked address.

    It is an OSError because aiohttp expects only those from the creation of a socket.
    """


class HeadTooLong(ClientError):
    """The receiver sent more than `HEAD_BYTES` of headers."""


class Resolver:
    """Resolves the host of a callback URL to addresses that the rules allow."""

    def __init__(
        self,
        rules: CallbackRules,
        *,
        look_up: LookUp | None = None,
        limit: timedelta = RESOLVE_TIMEOUT,
        threads: int = RESOLVE_THREADS,
    ) -> None:
        """Resolve with `look_up`, by default the system resolver, in at most `threads` threads."""
        self._rules = rules
        self._look_up = look_up or ask_system
        self._limit = limit.total_seconds()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolver")

    async def resolve(self, url: CallbackUrl) -> list[Address]:
        """Return the addresses of the host of `url`, at least one. Nothing is cached.

        Raises:
            RefusedUrl: The rules forbid at least one address. Final.
            Unresolvable: The lookup failed, timed out or found no address. A retry may succeed.
        """
        addresses = [url.address] if url.address else await self._ask(url.host, url.port)
        if any(address_problem(address, self._rules) for address in addresses):
            # Without the address: the names of this network are not disclosed.
            raise RefusedUrl("has a host that stands for an address that is not public")
        return addresses

    def close(self) -> None:
        """Look up nothing more. A lookup that hangs ends with its own timeout."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask(self, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            # A running thread cannot be cancelled, only abandoned; the pool bounds their number.
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
    """Return the addresses of `host` from the system resolver, without its search list."""
    answers = socket.getaddrinfo(f"{host}.", port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in answers]


_read_address: Final = functools.lru_cache(maxsize=4_096)(ip_address)


class CheckedAddresses:
    """The addresses that one attempt may connect to."""

    def __init__(self, addresses: Iterable[Address], rules: CallbackRules) -> None:
        """Allow `addresses` only, and check each against `rules` again when it is used."""
        self._addresses = tuple(addresses)
        self._rules = rules

    def results(self, host: str, port: int) -> list[ResolveResult]:
        """Return the addresses in the form that aiohttp expects from a resolver."""
        return [
            ResolveResult(
                hostname=host,
                host=str(address),
                port=port,
                family=socket.AF_INET if address.version == 4 else socket.AF_INET6,  # noqa: PLR2004
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in self._addresses[:MAX_CONNECT_ATTEMPTS]
        ]

    def open_socket(self, info: AddrInfoType) -> socket.socket:
        """Return a socket for the address in `info`.

        Raises:
            ForbiddenPeer: The address is not a checked one, or the rules forbid it.
        """
        family, kind, protocol, _, address = info
        self.check(address)
        opened = socket.socket(family, kind, protocol)
        # The default buffer takes megabytes from a receiver, all of which TLS would decrypt.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        return opened

    def check(self, peer: tuple[object, ...] | None) -> None:
        """Check that the socket address `peer` is one of the checked addresses.

        Raises:
            ForbiddenPeer: The address is not a checked one, or the rules forbid it.
        """
        address = _read_address(str(peer[0])) if peer else None
        known = address and unmapped(address) in map(unmapped, self._addresses)
        if address is None or not known or address_problem(address, self._rules):
            raise ForbiddenPeer


_checked: Final[ContextVar[CheckedAddresses]] = ContextVar("milepost_checked_addresses")


@contextlib.contextmanager
def connecting_to(addresses: CheckedAddresses) -> Iterator[None]:
    """Let this task, and those that it starts, connect to `addresses` only."""
    token = _checked.set(addresses)
    try:
        yield
    finally:
        _checked.reset(token)


class _Answers(AbstractResolver):
    """Passes the checked addresses to aiohttp."""

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002 - all are wanted
    ) -> list[ResolveResult]:
        return _checked.get().results(host, port)

    async def close(self) -> None:
        pass


class _BoundedResponse(ResponseHandler):
    """Accepts at most `HEAD_BYTES` before the final status, and closes without a shutdown."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._head_left = HEAD_BYTES
        self._last = b""
        self._body: StreamReader | None = None
        self._answered = False

    def close(self) -> None:
        # A graceful close waits until the receiver has read the pending data, and TLS reads on
        # until the receiver closes too, for up to 30 seconds.
        self.abort()

    def feed_data(self, data: tuple[RawResponseMessage, StreamReader], size: int = 0) -> None:
        self._answered = self._answered or data[0].code >= _FINAL_STATUS
        self._body = data[1]
        super().feed_data(data, size)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        # aiohttp tells it to those who wait for a head; who reads a body would wait on.
        super().set_exception(exc, exc if exc_cause is None else exc_cause)
        if self._body is not None and not self._body.is_eof() and self._body.exception() is None:
            self._body.set_exception(exc)

    def data_received(self, data: bytes) -> None:
        while data and not self._answered and self._head_left and self.exception() is None:
            head, data = self._split(data)
            self._head_left -= len(head)
            super().data_received(head)
        if self._answered:
            if data:
                super().data_received(data)
        elif self._head_left == 0 and self.exception() is None:
            self.set_exception(HeadTooLong())
            if self.transport is not None:
                self.transport.abort()

    def _split(self, data: bytes) -> tuple[bytes, bytes]:
        """Return the part of `data` up to the end of a head, and the rest.

        What follows a response, such as the body of a 204, is malformed. aiohttp would drop a
        response that it gets together with it.
        """
        end = _END_OF_HEAD.search(self._last + data)
        size = end.end() - len(self._last) if end else len(data)
        head, rest = data[: min(size, self._head_left)], data[min(size, self._head_left) :]
        self._last = b"" if end else (self._last + head)[-_MAX_SPLIT_END:]
        return head, rest


def _creates_protocols_with(factory: object) -> bool:
    """Return whether `factory` makes the protocol that `_BoundedResponse` can replace.

    The replacement needs to receive the data as `data_received`, and the head as `feed_data`.
    """
    return (
        getattr(factory, "func", None) is ResponseHandler
        and not issubclass(ResponseHandler, asyncio.BufferedProtocol)
        and hasattr(ResponseHandler, "feed_data")
    )


class GuardedConnector(TCPConnector):
    """Makes one connection for each attempt, to its checked addresses, and reuses none.

    Outside of `connecting_to` it makes no connection. The caller bounds their number.
    """

    def __init__(self) -> None:
        """Cache neither addresses nor connections.

        Raises:
            RuntimeError: This aiohttp creates its protocols in another way, so that a receiver
                could send headers without a bound.
        """
        super().__init__(
            resolver=_Answers(),
            socket_factory=lambda info: _checked.get().open_socket(info),
            use_dns_cache=False,
            force_close=True,
            limit=0,
        )
        # aiohttp has no public setting that bounds the size of all headers together.
        if not _creates_protocols_with(getattr(self, "_factory", None)):
            raise RuntimeError(AIOHTTP_CHANGED)
        self._factory = functools.partial(  # type: ignore[assignment]
            _BoundedResponse, loop=self._loop
        )

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - of aiohttp
    ) -> Connection:
        """Return a connection whose peer is one of the checked addresses.

        Raises:
            ForbiddenPeer: The peer is another one.
            RuntimeError: The size of the response headers would not be bounded.
        """
        try:
            connection = await super().connect(req, traces, timeout)
        except ClientConnectorError as error:
            if isinstance(error.os_error, ForbiddenPeer):
                raise error.os_error from None
            raise
        if not isinstance(connection.protocol, _BoundedResponse):
            connection.close()
            raise RuntimeError(AIOHTTP_CHANGED)  # noqa: TRY004 - not an argument of a caller
        try:
            transport = connection.transport
            _checked.get().check(transport.get_extra_info("peername") if transport else None)
        except ForbiddenPeer:
            connection.close()
            raise
        return connection
