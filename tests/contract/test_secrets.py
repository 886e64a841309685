"""Signing secrets: one current secret per owner, whoever makes it, and however many at once."""

import asyncio
from datetime import timedelta

import pytest

from milepost.storage import signing_secrets as secrets
from milepost.storage.session import Session
from milepost.storage.signing_secrets import Rotation
from tests.contract.stored import answers

OWNER = "alice"
DAY, SECOND = timedelta(days=1), timedelta(seconds=1)


@pytest.fixture
def outbox(stores):
    """The secrets as one replica sees them."""
    return stores.secrets


@pytest.fixture
def other(others):
    """... and as another one does."""
    return others.secrets


async def rotate(outbox, secret, request_id=None, owner=OWNER):
    """Whether `secret` is the current one from now on."""
    return await outbox.rotate_secret(owner, "k1", secret, request_id, DAY)


async def signing(outbox, owner=OWNER):
    """What signs now, the current one first."""
    return [found.sealed for found in await outbox.secrets(owner)]


async def test_first_secret_is_made_once(outbox, other):
    """Of many who need the first secret at once, one makes it for all."""
    found = await answers(
        *(who.first_secret(OWNER, "k1", b"%d" % n) for n, who in enumerate((outbox, other) * 4))
    )
    assert found == [None] * 8
    assert len(await signing(outbox)) == 1


async def test_rotation_keeps_the_secret_before(outbox):
    """A rotation leaves two secrets that sign, the next one ends the older of them at once."""
    for secret in (b"one", b"two", b"three"):
        assert await rotate(outbox, secret)
    assert await signing(outbox) == [b"three", b"two"]
    current, previous = await outbox.secrets(OWNER)
    assert current.expire_time is None
    assert abs(previous.expire_time - current.create_time - DAY) < SECOND


async def test_rotation_of_one_owner_is_no_other_ones(outbox):
    """The secrets of others stay as they are."""
    await rotate(outbox, b"hers", owner="mallory")
    await rotate(outbox, b"one")
    await rotate(outbox, b"two")
    assert await signing(outbox, "mallory") == [b"hers"]


async def test_rotation_that_waits_replaces_what_it_waited_for(engine, outbox):
    """A rotation during another one comes after it: neither fails, and neither is undone."""
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
    """All succeed, one after the other; in the end the last two sign, and nobody else's."""
    if exists:
        await rotate(outbox, b"old")
    made = [b"new %d" % n for n in range(10)]
    found = await answers(
        *(rotate(who, secret) for who, secret in zip((outbox, other) * 5, made, strict=True))
    )
    assert found == [True] * 10
    left = await signing(outbox)
    assert len(left) == 2
    assert set(left) < set(made)


@pytest.mark.parametrize("exists", [True, False])
async def test_same_rotation_at_once(outbox, other, exists):
    """Of one rotation that is sent several times at once, one is made; the others say so."""
    before = [b"old"] if exists else []
    for secret in before:
        await rotate(outbox, secret)
    made = [b"new %d" % n for n in range(6)]
    found = await answers(
        *(
            rotate(who, secret, "same")
            for who, secret in zip((outbox, other) * 3, made, strict=True)
        )
    )
    assert sorted(found) == [False] * 5 + [True]
    assert await signing(outbox) == [made[found.index(True)], *before]
