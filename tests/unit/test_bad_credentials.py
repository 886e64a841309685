"""The limit of bad credentials, without an authenticator."""

import asyncio

import pytest

from milepost.access.bad_credentials import BadCredentials
from milepost.domain.errors import RateLimited, Unauthenticated
from tests.waiting import until

ADDRESS = "192.0.2.7"


class Clock:
    """A clock that the test moves."""

    now = 1_000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def verify(limit: BadCredentials, go: asyncio.Event, *, good: bool) -> None:
    """Verify a credential, which takes until `go` is set."""
    async with limit.verifying(ADDRESS):
        await go.wait()
        if not good:
            raise Unauthenticated


def waiting(limit: BadCredentials) -> int:
    """Return the number of verifications that wait for another one."""
    return sum(len(each.waiting) for each in limit._verifications.values())


async def test_woken_verification_that_is_cancelled_wakes_the_next():
    """A call that is cancelled at the moment of its turn passes the turn on."""
    limit, go = BadCredentials(1, Clock()), asyncio.Event()
    go.set()
    async with limit.verifying(ADDRESS):
        first, second = (asyncio.create_task(verify(limit, go, good=True)) for _ in range(2))
        await until(lambda: waiting(limit) == 2)
    first.cancel()  # its turn has come, but it has not run since
    async with asyncio.timeout(5):
        await second
    assert first.cancelled()
    assert not limit._verifications


async def test_all_that_wait_are_refused_after_the_last_failure():
    """When the last failure is used up, whatever waits is refused at once."""
    limit, go = BadCredentials(2, Clock()), asyncio.Event()
    calls = [asyncio.create_task(verify(limit, go, good=False)) for _ in range(50)]
    await until(lambda: waiting(limit) == 48)
    go.set()
    errors = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(error) for error in errors].count(Unauthenticated) == 2
    assert [type(error) for error in errors].count(RateLimited) == 48
    assert not limit._verifications


async def test_failures_come_back_with_time():
    """One more failure is allowed after each interval, also while others run."""
    clock = Clock()
    limit, go = BadCredentials(60, clock), asyncio.Event()
    go.set()
    for _ in range(60):
        with pytest.raises(Unauthenticated):
            await verify(limit, go, good=False)
    with pytest.raises(RateLimited) as caught:
        await verify(limit, go, good=True)
    assert caught.value.retry_after.total_seconds() == pytest.approx(1.0)
    clock.now += 1.0
    await verify(limit, go, good=True)
    with pytest.raises(Unauthenticated):
        await verify(limit, go, good=False)
    with pytest.raises(RateLimited):
        await verify(limit, go, good=False)
