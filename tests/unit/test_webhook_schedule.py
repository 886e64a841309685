"""Retries after an attempt."""

from datetime import timedelta

import pytest

from milepost.domain.delivery import DeliveryStatus
from milepost.webhooks.schedule import MAX_RETRY_AFTER, verdict

SECOND = timedelta(seconds=1)
SCHEDULE = (timedelta(0), SECOND, 2 * SECOND)


def after(code=None, *, refused=False, retry_after=None, tries=1, dice=0.0):
    """Return the verdict on an attempt."""
    return verdict(
        code=code,
        refused=refused,
        retry_after=retry_after,
        tries=tries,
        schedule=SCHEDULE,
        dice=dice,
    )


@pytest.mark.parametrize("code", [200, 201, 204, 299])
def test_2xx_is_success(code):
    """Any 2xx delivers, even at the last attempt."""
    assert after(code, tries=9).status is DeliveryStatus.DELIVERED


@pytest.mark.parametrize("code", [None, 100, 301, 302, 400, 404, 429, 500, 503])
def test_anything_else_is_tried_again_until_the_schedule_ends(code):
    """A failure is retried until the schedule ends; then the delivery is exhausted."""
    assert after(code).status is DeliveryStatus.PENDING
    assert after(code, tries=3).status is DeliveryStatus.EXHAUSTED


@pytest.mark.parametrize("answer", [{"code": 410}, {"refused": True}])
def test_final_failures_stop(answer):
    """410 and a refused URL stop at the first attempt."""
    assert after(**answer).status is DeliveryStatus.STOPPED


def test_delays_are_those_of_the_schedule_with_jitter():
    """A delay is never shorter than the schedule says, and at most a fifth longer."""
    assert after(500, tries=2).delay == 2 * SECOND
    assert after(500, tries=2, dice=1.0).delay == 2.4 * SECOND


@pytest.mark.parametrize("code", [429, 503])
def test_retry_after_lengthens_the_delay(code):
    """Retry-After of 429 and 503 lengthens the delay up to a bound."""
    assert after(code, retry_after=timedelta(hours=1)).delay == timedelta(hours=1)
    assert after(code, retry_after=timedelta(days=9)).delay == MAX_RETRY_AFTER
    assert after(code, retry_after=timedelta(0)).delay >= SECOND
    assert after(500, retry_after=timedelta(hours=1)).delay == SECOND


def test_too_many_requests_waits_longer():
    """429 doubles the delay even without Retry-After."""
    assert after(429).delay == 2 * after(500).delay
