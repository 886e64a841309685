"""The HTTP client of webhooks: one POST, to a receiver that may be slow, broken or hostile.

Every attempt has its own connection. Redirects, proxies, cookies and decompression are off. The
constants below and those of `guard` bound the work that a receiver can cause.
"""

from __future__ import annotations

import asyncio
import email.utils
import functools
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from aiohttp import (
    ClientConnectorCertificateError,
    ClientConnectorError,
    ClientConnectorSSLError,
    ClientError,
    ClientOSError,
    ClientPayloadError,
    ClientResponseError,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    ServerDisconnectedError,
    hdrs,
)
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from milepost.domain.callback_url import CallbackRules, CallbackUrl, RefusedUrl
from milepost.telemetry import log
from milepost.webhooks.circuit_breaker import Contact
from milepost.webhooks.guard import (
    CheckedAddresses,
    ForbiddenPeer,
    GuardedConnector,
    HeadTooLong,
    Resolver,
    Unresolvable,
    connecting_to,
)

if TYPE_CHECKING:
    from aiohttp import ClientResponse

ATTEMPT_TIMEOUT: Final = timedelta(seconds=5)
"""Timeout from the lookup of the host to the end of the response."""
CONNECT_TIMEOUT: Final = timedelta(seconds=3)
"""Timeout of TCP and TLS together."""
BODY_BYTES: Final = 4_096
"""Part of a response body that is read and discarded, so that the receiver can finish writing."""
RETRY_AFTER_MAX: Final = timedelta(hours=24)
_OWN_HEADERS: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT)
"""Headers that aiohttp adds by default."""


class Failure(StrEnum):
    """The reason why there is no response. It never quotes the receiver."""

    REFUSED = "refused by the rules for callback URLs"
    UNRESOLVABLE = "name not resolved"
    FORBIDDEN_PEER = "address not allowed"
    CONNECT_TIMEOUT = "connecting timed out"
    NOT_CONNECTED = "connection failed"
    CERTIFICATE = "certificate not accepted"
    TLS = "TLS handshake failed"
    TIMEOUT = "timed out"
    CLOSED = "connection closed early"
    HEAD_TOO_LONG = "headers too long"
    MALFORMED = "malformed answer"
    INTERNAL = "could not be sent"


_FAILURES: Final[Mapping[type[Exception], Failure]] = {
    RefusedUrl: Failure.REFUSED,
    Unresolvable: Failure.UNRESOLVABLE,
    ForbiddenPeer: Failure.FORBIDDEN_PEER,
    HeadTooLong: Failure.HEAD_TOO_LONG,
    ConnectionTimeoutError: Failure.CONNECT_TIMEOUT,
    TimeoutError: Failure.TIMEOUT,
    ClientConnectorCertificateError: Failure.CERTIFICATE,
    ClientConnectorSSLError: Failure.TLS,
    ClientConnectorError: Failure.NOT_CONNECTED,
    ServerDisconnectedError: Failure.CLOSED,
    ClientPayloadError: Failure.CLOSED,
    ClientOSError: Failure.CLOSED,
    ClientResponseError: Failure.MALFORMED,
    HttpProcessingError: Failure.MALFORMED,
    ClientError: Failure.MALFORMED,
    OSError: Failure.CLOSED,
}
"""The failure of an exception: that of the first class of its MRO in this mapping."""


_CONTACTS: Final[Mapping[str, Contact]] = {
    Failure.REFUSED: Contact.NONE,
    Failure.FORBIDDEN_PEER: Contact.NONE,
    Failure.INTERNAL: Contact.NONE,
    Failure.UNRESOLVABLE: Contact.UNREACHABLE,
    Failure.CONNECT_TIMEOUT: Contact.UNREACHABLE,
    Failure.NOT_CONNECTED: Contact.UNREACHABLE,
    Failure.CERTIFICATE: Contact.UNREACHABLE,
    Failure.TLS: Contact.UNREACHABLE,
}
"""The failures before a request was sent. After any other one the request had been sent."""


class Answer(NamedTuple):
    """The outcome of one attempt. Either `status` or `error` is set, never both."""

    status: int | None
    """The HTTP status, if the response arrived in full or up to `BODY_BYTES`."""
    error: str | None
    """A value of `Failure`."""
    duration: timedelta
    retry_after: timedelta | None
    """Pause that the receiver asks for, at most `RETRY_AFTER_MAX`."""
    refused: bool
    """The rules for callback URLs forbid the receiver. Nothing was sent; a retry is pointless."""

    @property
    def contact(self) -> Contact:
        """The contact with the receiver, for the circuit breaker."""
        if self.status is not None:
            return Contact.ANSWERED
        return _CONTACTS.get(self.error or "", Contact.UNANSWERED)


class Sender:
    """Posts webhooks. Every outcome is a value; no receiver can cause an exception."""

    def __init__(
        self,
        rules: CallbackRules,
        resolver: Resolver,
        *,
        tls: ssl.SSLContext | None = None,
        total: timedelta = ATTEMPT_TIMEOUT,
        connect: timedelta = CONNECT_TIMEOUT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Verify certificates with `tls`, by default with those that the system trusts."""
        self._rules = rules
        self._resolver = resolver
        self._tls = tls or ssl.create_default_context()
        self._total = total.total_seconds()
        self._timeout = ClientTimeout(total=None, connect=connect.total_seconds())
        self._now = now

    async def post(
        self, url: CallbackUrl, *, owner: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Send `body` with exactly these `headers` to `url`, once, on a connection of its own.

        The only exception is a cancellation, which closes the connection too.
        """
        began = time.monotonic()
        status, failure, retry_after = None, None, None
        try:
            async with asyncio.timeout(self._total):
                status, retry_after = await self._attempt(url, headers, body)
        except Exception as error:  # noqa: BLE001 - every outcome is a value
            failure = _failure_of(error)
            if failure is Failure.INTERNAL:
                # Without the text: it may quote the URL or a header.
                log.error("webhook sender failed", owner=owner, cause=type(error).__name__)
        return Answer(
            status=status,
            error=failure,
            duration=timedelta(seconds=time.monotonic() - began),
            retry_after=retry_after,
            refused=failure is Failure.REFUSED,
        )

    def open(self) -> None:
        """Create the session now, to fail at start-up with an aiohttp that cannot be guarded."""
        _ = self._session

    async def close(self) -> None:
        """Close the connections of attempts that still run, and send nothing more."""
        self._resolver.close()
        await self._session.close()

    async def _attempt(
        self, url: CallbackUrl, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, timedelta | None]:
        with connecting_to(CheckedAddresses(await self._resolver.resolve(url), self._rules)):
            async with self._session.post(
                _target(url), headers=headers, data=body, allow_redirects=False, ssl=self._tls
            ) as response:
                await _discard_body(response)
                return response.status, _retry_after(response.headers, self._now())

    @functools.cached_property
    def _session(self) -> ClientSession:
        """The session of all attempts, created on the event loop. It keeps no state of them."""
        return ClientSession(
            connector=GuardedConnector(),
            cookie_jar=DummyCookieJar(),
            skip_auto_headers=_OWN_HEADERS,
            auto_decompress=False,
            trust_env=False,
            read_bufsize=BODY_BYTES,
            timeout=self._timeout,
        )


@functools.lru_cache(maxsize=1_024)
def _target(url: CallbackUrl) -> URL:
    """Return `url` for aiohttp, from its checked parts and byte for byte."""
    path, _, query = url.path_and_query.partition("?")
    return URL.build(
        scheme=url.scheme,
        host=f"[{url.host}]" if ":" in url.host else url.host,
        port=url.port,
        path=path,
        query_string=query,
        encoded=True,
    )


async def _discard_body(response: ClientResponse) -> None:
    left = BODY_BYTES
    while left > 0 and (chunk := await response.content.read(left)):
        left -= len(chunk)
    # The rest is not read: the connection is closed, not reused.
    response.close()


def _retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return the pause of a ``Retry-After`` header, which has seconds or a date, or None."""
    text = headers.get(hdrs.RETRY_AFTER, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        # More digits are beyond the maximum, and take time to parse.
        seconds = int(text.lstrip("0")[:9] or "0")
        return min(timedelta(seconds=seconds), RETRY_AFTER_MAX)
    with suppress(ValueError, OverflowError):
        date = email.utils.parsedate_to_datetime(text)
        date = date if date.tzinfo else date.replace(tzinfo=UTC)
        return min(max(date - now, timedelta()), RETRY_AFTER_MAX)
    return None


def _failure_of(error: Exception) -> Failure:
    for ancestor in type(error).__mro__:
        if ancestor in _FAILURES:
            return _FAILURES[ancestor]
    return Failure.INTERNAL
