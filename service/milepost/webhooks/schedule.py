"""The retry schedule: the status of a delivery after an attempt, and the next delay. Pure."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from milepost.domain.delivery import DeliveryStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

JITTER: Final = 0.2
"""Largest share by which a delay is lengthened, so that simultaneous failures spread out."""
MAX_RETRY_AFTER: Final = timedelta(hours=2)
"""Bound of the pause that a receiver can ask for."""
_WITH_RETRY_AFTER: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_ZERO: Final = timedelta(0)


class Verdict(NamedTuple):
    """The status of a delivery after an attempt, and the delay of the next attempt."""

    status: DeliveryStatus
    delay: timedelta = _ZERO


def verdict(
    *,
    code: int | None,
    refused: bool,
    retry_after: timedelta | None,
    tries: int,
    schedule: Sequence[timedelta],
    dice: float,
) -> Verdict:
    """Return the verdict on one attempt.

    Args:
        code: the HTTP status, or None if there was no answer.
        refused: the rules forbid the URL; nothing was sent.
        retry_after: pause that the receiver asked for.
        tries: failed attempts of this schedule, this one included if it failed.
        schedule: the delays before each attempt; as many as there are attempts.
        dice: random number from 0 to 1, for the jitter.
    """
    if code is not None and is_success(code):
        return Verdict(status=DeliveryStatus.DELIVERED)
    if refused or code == HTTPStatus.GONE:
        return Verdict(status=DeliveryStatus.STOPPED)
    if tries >= len(schedule):
        return Verdict(status=DeliveryStatus.EXHAUSTED)
    delay = schedule[tries] * (1 + JITTER * dice)
    if code == HTTPStatus.TOO_MANY_REQUESTS:
        delay *= 2
    if code in _WITH_RETRY_AFTER and retry_after is not None:
        delay = max(delay, min(retry_after, MAX_RETRY_AFTER))
    return Verdict(status=DeliveryStatus.PENDING, delay=delay)


def is_success(code: int) -> bool:
    """Return True if an HTTP status means that the receiver accepted the webhook."""
    return HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES
