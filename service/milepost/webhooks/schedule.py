"""What comes after an attempt: nothing more, or another one after a while. Pure."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NamedTuple

from milepost.domain.delivery import DeliveryStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

JITTER: Final = 0.2
"""Delays are lengthened by up to this share, so that what failed together is not retried so."""
LONGEST_RETRY_AFTER: Final = timedelta(hours=2)
"""However long a receiver asks to be left alone."""
_HEEDED: Final = frozenset({HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE})
_ZERO: Final = timedelta(0)


class Verdict(NamedTuple):
    """Where an attempt leaves its delivery."""

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
    """Return what follows from the answer to one attempt.

    Args:
        code: the HTTP status, or nothing if there was no answer.
        refused: the URL may not be contacted; nothing was.
        retry_after: what the receiver asked for.
        tries: failed attempts of this schedule, this one included if it failed.
        schedule: the delays before each attempt; as many as there are attempts.
        dice: from 0 to 1.
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
    if code in _HEEDED and retry_after is not None:
        delay = max(delay, min(retry_after, LONGEST_RETRY_AFTER))
    return Verdict(status=DeliveryStatus.PENDING, delay=delay)


def is_success(code: int) -> bool:
    """Tell whether an HTTP status says that the webhook was taken."""
    return HTTPStatus.OK <= code < HTTPStatus.MULTIPLE_CHOICES
