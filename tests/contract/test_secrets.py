"""Signing secrets: one current secret per owner, also with concurrent rotations."""

import asyncio
from datetime import timedelta

import pytest

from milepost.domain.errors import StoreUnavailable
from milepost.storage import signing_secrets as secrets
from milepost.storage.session import Session
from milepost.storage.signing_secrets import Rotation, SqlSecretStore
from milepost.tracking.signing_secrets import Secrets
from milepost.webhooks.master_keys import new_key, read_keys
from milepost.webhooks.vault import Vault
from tests.contract.stored import answers

OWNER = "alice"
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.fixture
def outbox(stores):
    """The secret store of a replica."""
    return stores.secrets


@pytest.fixture
def other(others):
    """The secret store of another replica."""
    return others.secrets


class Counting(SqlSecretStore):
    """A secret store that counts the first secrets that it creates, and fails at some."""

    def __init__(self, batchers, failures=0):
        super().__init__(batchers)
        self._failures = failures
        self.created = 0

    async def first_secret(self, *first):
        """Create the first secret, or fail."""
        self.created += 1
        if self.created <= self._failures:
            raise StoreUnavailable
        await super().first_secret(*first)


async def rotate(outbox, secret, request_id=None, owner=OWNER):
    """Rotate to `secret`; return False for a retry."""
    return await outbox.rotate_secret(owner, "k1", secret, request_id, DAY)


async def signing(outbox, owner=OWNER):
    """Return the secrets that sign now, the current one first."""
    return [found.sealed for found in await outbox.secrets(owner)]


async def test_first_secret_is_made_once(outbox, other):
    """Concurrent calls store one first secret."""
    found = await answers(
        *(store.first_secret(OWNER, "k1", b"%d" % n) for n, store in enumerate((outbox, other) * 4))
    )
    assert found == [None] * 8
    assert len(await signing(outbox)) == 1


async def test_callers_at_once_share_the_first_secret(batchers, other):
    """Concurrent callers of one owner create its secret with one call of the store."""
    counting = Counting(batchers)
    owners = Secrets(counting, Vault(read_keys(new_key())))
    callers = [asyncio.create_task(owners.prepare(OWNER)) for _ in range(100)]
    await asyncio.sleep(0)
    callers[0].cancel()  # it does not cancel the others
    await asyncio.gather(*callers[1:])
    assert counting.created == 1
    assert len(await signing(other)) == 1
    await owners.prepare("mallory")
    assert counting.created == 2


async def test_failure_to_create_is_not_kept(batchers, outbox):
    """After a failure to create the first secret, the next caller tries again."""
    counting = Counting(batchers, failures=1)
    owners = Secrets(counting, Vault(read_keys(new_key())))
    found = await answers(*(owners.prepare(OWNER) for _ in range(3)))
    assert [type(each) for each in found] == [StoreUnavailable] * 3
    await owners.prepare(OWNER)
    assert len(await signing(outbox)) == 1


async def test_rotation_keeps_the_secret_before(outbox):
    """After a rotation the current and the previous secret sign; older ones do not."""
    for secret in (b"one", b"two", b"three"):
        assert await rotate(outbox, secret)
    assert await signing(outbox) == [b"three", b"two"]
    current, previous = await outbox.secrets(OWNER)
    assert current.expire_time is None
    assert abs(previous.expire_time - current.create_time - DAY) < SECOND


async def test_rotation_of_one_owner_is_no_other_ones(outbox):
    """A rotation does not change the secrets of other owners."""
    await rotate(outbox, b"hers", owner="mallory")
    await rotate(outbox, b"one")
    await rotate(outbox, b"two")
    assert await signing(outbox, "mallory") == [b"hers"]


async def test_rotation_that_waits_replaces_what_it_waited_for(engine, outbox):
    """A rotation during another one waits for it and then replaces its secret."""
    await rotate(outbox, b"old")
    session = Session(engine)
    first = Rotation(owner=OWNER, key_id="k1", sealed=b"first", request_id=None, overlap=DAY)
    with session.transaction():
        assert secrets.rotate(session, first)
        second = asyncio.create_task(rotate(outbox, b"second"))
        await asyncio.sleep(0.2)
        assert not second.done()
    session.reset()
    assert await second
    assert await signing(outbox) == [b"second", b"first"]


@pytest.mark.parametrize("exists", [True, False])
async def test_many_rotations_at_once(outbox, other, exists):
    """Concurrent rotations all succeed, and two of their secrets sign afterwards."""
    if exists:
        await rotate(outbox, b"old")
    new = [b"new %d" % n for n in range(10)]
    found = await answers(
        *(rotate(store, secret) for store, secret in zip((outbox, other) * 5, new, strict=True))
    )
    assert found == [True] * 10
    remaining = await signing(outbox)
    assert len(remaining) == 2
    assert set(remaining) < set(new)


@pytest.mark.parametrize("exists", [True, False])
async def test_same_rotation_at_once(outbox, other, exists):
    """Of concurrent calls with one request_id, one rotates and the others are retries."""
    before = [b"old"] if exists else []
    for secret in before:
        await rotate(outbox, secret)
    new = [b"new %d" % n for n in range(6)]
    found = await answers(
        *(
            rotate(store, secret, "same")
            for store, secret in zip((outbox, other) * 3, new, strict=True)
        )
    )
    assert sorted(found) == [False] * 5 + [True]
    assert await signing(outbox) == [new[found.index(True)], *before]
