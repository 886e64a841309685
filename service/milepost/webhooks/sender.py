"""Sends one webhook once, to a receiver that may be slow, broken or hostile.

Every attempt has a connection of its own. There are no redirects, proxies, cookies, and nothing is
decompressed: what a receiver can make this process do is bounded by the constants below and by
those of `guard`.
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
from yarl import URL

from milepost.domain.callback_url import CallbackRules, CallbackUrl, RefusedUrl
from milepost.telemetry import log
from milepost.webhooks.guard import (
    ForbiddenPeer,
    GuardedConnector,
    HeadTooLong,
    Resolver,
    StatusChange,
    Unresolvable,
    through,
)

if TYPE_CHECKING:
    from aiohttp import ClientResponse

TOTAL_LIMIT: Final = timedelta(seconds=5)
"""Of one attempt, from the lookup of the name to the end of the answer."""
CONNECT_LIMIT: Final = timedelta(seconds=3)
"""Of TCP and TLS together."""
BODY_BYTES: Final = 4_096
"""Of an answer: that much is read, so that a polite receiver is heard out, and thrown away."""
RETRY_AFTER_MAX: Final = timedelta(hours=24)
_OWN_HEADERS: Final = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT)
"""What aiohttp would add by itself."""


class Failure(StrEnum):
    """Why there is no answer. No text of the receiver is ever among these words."""

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
    ClientError: Failure.MALFORMED,
    OSError: Failure.CLOSED,
}
"""The first class of an exception's ancestry that stands here decides."""


class Answer(NamedTuple):
    """What became of one attempt. Either `status` or `error` is set, never both."""

    status: int | None
    """Of an answer that came in full, or of which `BODY_BYTES` came."""
    error: str | None
    """One of the words of `Failure`."""
    duration: timedelta
    retry_after: timedelta | None
    """How long the receiver asks to be left alone, at most `RETRY_AFTER_MAX`."""
    refused: bool
    """Whether the rules for URLs said no. Nothing was contacted, and trying again is no use."""


class Sender:
    """Posts webhooks. Says what happened; never raises for what a receiver does."""

    def __init__(
        self,
        rules: CallbackRules,
        resolver: Resolver,
        *,
        tls: ssl.SSLContext | None = None,
        total: timedelta = TOTAL_LIMIT,
        connect: timedelta = CONNECT_LIMIT,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Trust the certificates that `tls` trusts, by default those that the system trusts."""
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

        Only a cancellation is raised; the connection is closed then, too.
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
                log.error("webhook could not be sent", owner=owner, cause=type(error).__name__)
        return Answer(
            status=status,
            error=failure,
            duration=timedelta(seconds=time.monotonic() - began),
            retry_after=retry_after,
            refused=failure is Failure.REFUSED,
        )

    async def close(self) -> None:
        """Nothing more is sent: attempts that still run lose their connections."""
        self._resolver.close()
        await self._session.close()

    async def _attempt(
        self, url: CallbackUrl, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, timedelta | None]:
        with through(StatusChange(await self._resolver.resolve(url), self._rules)):
            async with self._session.post(
                _target(url), headers=headers, data=body, allow_redirects=False, ssl=self._tls
            ) as response:
                await _hear_out(response)
                return response.status, _retry_after(response.headers, self._now())

    @functools.cached_property
    def _session(self) -> ClientSession:
        """What all attempts have in common, made on the event loop: it keeps nothing of any."""
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


async def _hear_out(response: ClientResponse) -> None:
    left = BODY_BYTES
    while left > 0 and (chunk := await response.content.read(left)):
        left -= len(chunk)
    # Not what is left of it: the connection is closed, not reused.
    response.close()


def _retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Return the pause that a ``Retry-After`` asks for, in seconds or as a date."""
    text = headers.get(hdrs.RETRY_AFTER, "").strip()
    if not text:
        return None
    if text.isascii() and text.isdigit():
        # More digits than these are beyond the maximum anyway, and cost time to read.
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
