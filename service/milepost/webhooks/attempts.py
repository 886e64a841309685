"""One attempt to send one webhook, from its body and signature to the settlement."""

from __future__ import annotations

import functools
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, Protocol

from milepost.domain.callback_url import CallbackUrl, RefusedUrl, read_callback_url
from milepost.domain.delivery import Attempt, Probe, Settlement, new_delivery_id
from milepost.domain.errors import InvalidRequest, Violation, WebhooksNotConfigured
from milepost.webhooks.body import body_of, body_of_test
from milepost.webhooks.circuit_breaker import Contact
from milepost.webhooks.schedule import is_success, verdict
from milepost.webhooks.signing import signed_headers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from milepost.domain.callback_url import CallbackRules
    from milepost.domain.delivery import ClaimedDelivery
    from milepost.tracking.signing_secrets import Secrets
    from milepost.webhooks.sender import Answer

_PLAIN_HEADERS: Final = {
    "Content-Type": "application/json",
    "User-Agent": "Milepost-Webhook/1",
}
MAX_CACHED_URLS: Final = 1_024
"""Bound of the parsed URLs that are kept: most webhooks go to the URL of an earlier one."""
NO_DURATION: Final = timedelta(0)
"""Duration of an attempt that ended before anything was sent."""
NOT_PUBLIC: Final = "has a host that stands for an address that is not public"


class Poster(Protocol):
    """The port that `sender.Sender` fills."""

    async def post(
        self, url: CallbackUrl, *, owner: str, headers: Mapping[str, str], body: bytes
    ) -> Answer:
        """Post once; return the outcome, network failures included."""


@dataclass(frozen=True, slots=True)
class _NotSent:
    """The problem of an attempt that ended before anything was sent."""

    error: str
    final: bool


class DeliveryAttempts:
    """Makes attempts, each with a settlement as its result."""

    def __init__(
        self,
        sender: Poster,
        secrets: Secrets,
        rules: CallbackRules,
        schedule: Sequence[timedelta],
    ) -> None:
        """Send with `sender` to URLs that `rules` allow, and retry after `schedule`."""
        self._sender = sender
        self._secrets = secrets
        self._rules = rules
        self._read = functools.lru_cache(MAX_CACHED_URLS)(read_callback_url)
        self._schedule = tuple(schedule)

    async def make(
        self, claimed: ClaimedDelivery, *, start_time: datetime, traceparent: str | None
    ) -> tuple[Settlement, Contact]:
        """Send a claimed webhook once; return the settlement, and the contact with the receiver.

        Raises:
            Unavailable: The store did not return the signing secrets; nothing was sent.
        """
        sent = await self._send(claimed, start_time, traceparent)
        if isinstance(sent, _NotSent):
            settlement = self._settlement(
                claimed, start_time, NO_DURATION, None, sent.error, final=sent.final
            )
            return settlement, Contact.NONE
        settlement = self._settlement(
            claimed,
            start_time,
            sent.duration,
            sent.status,
            _problem(sent),
            final=sent.refused,
            retry_after=sent.retry_after,
        )
        return settlement, sent.contact

    async def _send(
        self, claimed: ClaimedDelivery, start_time: datetime, traceparent: str | None
    ) -> Answer | _NotSent:
        if claimed.snapshot is None:
            return _NotSent("the operation is gone", final=True)
        try:
            url = self._read(claimed.callback_url, self._rules)
        except RefusedUrl as refused:
            return _NotSent(
                f"refused by the rules for callback URLs: {refused.problem}", final=True
            )
        try:
            secrets = await self._secrets.of_delivery(claimed.owner, claimed.secrets)
        except WebhooksNotConfigured:
            return _NotSent("the signing secret cannot be read", final=False)
        body = body_of(claimed, claimed.snapshot)
        headers = {
            **signed_headers(secrets.keys, claimed.id, start_time, body),
            **_PLAIN_HEADERS,
            "X-Operation-Id": claimed.operation_id,
        }
        if traceparent is not None:
            headers["traceparent"] = traceparent
        return await self._sender.post(url, owner=claimed.owner, headers=headers, body=body)

    async def probe(self, owner: str, callback_url: str, keys: Sequence[bytes]) -> Probe:
        """See `Prober.probe`."""
        start_time = datetime.now(UTC)
        webhook_id, body = new_delivery_id(), body_of_test(start_time)
        try:
            url = read_callback_url(callback_url, self._rules)
        except RefusedUrl as refused:
            raise InvalidRequest(Violation("callback_url", refused.problem)) from None
        headers = {**signed_headers(keys, webhook_id, start_time, body), **_PLAIN_HEADERS}
        sent = await self._sender.post(url, owner=owner, headers=headers, body=body)
        if sent.refused:
            raise InvalidRequest(Violation("callback_url", NOT_PUBLIC))
        attempt = Attempt(
            number=1,
            start_time=start_time,
            duration=sent.duration,
            status_code=sent.status,
            error=_problem(sent),
        )
        return Probe(webhook_id=webhook_id, attempt=attempt)

    def _settlement(
        self,
        claimed: ClaimedDelivery,
        start_time: datetime,
        duration: timedelta,
        code: int | None,
        error: str | None,
        *,
        final: bool,
        retry_after: timedelta | None = None,
    ) -> Settlement:
        tries = claimed.tries + (error is not None)
        found = verdict(
            code=code,
            refused=final,
            retry_after=retry_after,
            tries=tries,
            schedule=self._schedule,
            dice=random.random(),  # noqa: S311 - jitter
        )
        return Settlement(
            id=claimed.id,
            lease=claimed.lease,
            attempt=Attempt(
                number=claimed.number,
                start_time=start_time,
                duration=duration,
                status_code=code,
                error=error,
            ),
            status=found.status,
            tries=tries,
            delay=found.delay,
        )


def _problem(sent: Answer) -> str | None:
    """Return the reason of a failure, without any text of the receiver, or None."""
    if sent.status is None:
        return str(sent.error)
    return None if is_success(sent.status) else f"answered {sent.status}"
