"""API keys in the store: creates, lists, revocations, expiry and uses."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.api_key import CreateKeyRequest, KeySelection, issue_key, verify_key
from milepost.domain.errors import ApiKeyNotFound, InvalidRequest, RequestIdReused
from milepost.domain.limits import Limits
from milepost.domain.operation import Principal, Role
from milepost.storage import api_keys as stored_keys
from milepost.storage.api_keys import KeyRing
from milepost.storage.tables import api_keys
from milepost.tracking.keys import MAX_UNWRITTEN_USES, Keys
from milepost.tracking.page_tokens import PageTokens

ADMIN = Principal(subject="root", roles=frozenset({Role.ADMIN}), credential_id="0" * 16)
OTHER = Principal(subject="toor", roles=frozenset({Role.ADMIN}), credential_id="1" * 16)
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


@pytest.fixture
def keys(stores) -> Keys:
    """The use cases of API keys over the store."""
    return Keys(stores.keys, limits=Limits(), page_tokens=PageTokens(bytes(32)))


def create_request(**fields) -> CreateKeyRequest:
    """Return the content of a key."""
    return CreateKeyRequest(**{"subject": "alice", "roles": (Role.CALLER,), **fields})


def in_an_hour() -> datetime:
    """Return a time in an hour, in the precision of both databases."""
    return (datetime.now(UTC) + timedelta(hours=1)).replace(microsecond=123_000)


async def test_created_key_speaks_for_its_subject(keys, stores):
    """A created secret authenticates its subject, with the roles and grants of the key."""
    end = in_an_hour()
    created = await keys.create(
        ADMIN,
        create_request(roles=(Role.CALLER, Role.WORKER), functions=("video.*",), expire_time=end),
    )
    assert created.secret is not None
    found = verify_key(created.secret, await stores.keys.find_key(created.key.key_id))
    assert found == Principal(
        subject="alice",
        roles=frozenset({Role.CALLER, Role.WORKER}),
        credential_id=created.key.key_id,
        functions=("video.*",),
    )
    assert created.key.expire_time == end
    assert (created.key.last_used_time, created.key.revoke_time) == (None, None)
    assert abs(created.key.create_time - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("subject", ["", "alice ", "ali\u200bce", "web:alice", "Web:alice"])
async def test_key_of_no_subject_is_not_created(stores, subject):
    """No key is created for a text that is no subject, or for a subject of a trusted issuer."""
    keys = Keys(
        stores.keys,
        limits=Limits(),
        page_tokens=PageTokens(bytes(32)),
        reserved_subjects=("web:",),
    )
    with pytest.raises(InvalidRequest) as caught:
        await keys.create(ADMIN, create_request(subject=subject))
    assert [violation.field for violation in caught.value.violations] == ["subject"]
    assert (await keys.list(ADMIN, KeySelection(inactive=True)))[0] == []


async def test_repeated_create_returns_the_key_without_its_secret(keys):
    """A retried create returns the key without its secret."""
    first = await keys.create(ADMIN, create_request(request_id="r1"))
    again = await keys.create(ADMIN, create_request(request_id="r1"))
    assert (first.replayed, again.replayed) == (False, True)
    assert again.key == first.key
    assert again.secret is None
    other = await keys.create(OTHER, create_request(request_id="r1"))
    assert other.key.key_id != first.key.key_id


async def test_request_id_is_for_one_content(keys):
    """A request_id that created a key with other content is refused, and nothing is stored."""
    await keys.create(ADMIN, create_request(request_id="r1"))
    with pytest.raises(RequestIdReused):
        await keys.create(ADMIN, create_request(request_id="r1", subject="bob"))
    found, _ = await keys.list(ADMIN, KeySelection(inactive=True))
    assert len(found) == 1


async def test_concurrent_creates_with_one_request_id_make_one_key(keys, others):
    """Of concurrent calls with one request_id on two replicas, exactly one creates a key."""
    other = Keys(others.keys, limits=Limits(), page_tokens=PageTokens(bytes(32)))
    results = await asyncio.gather(
        *(k.create(ADMIN, create_request(request_id="r1")) for k in (keys, other) * 5)
    )
    assert sorted(result.replayed for result in results) == [False] + [True] * 9
    assert len({result.key.key_id for result in results}) == 1


async def test_end_lies_in_the_future(keys):
    """A create with an expire_time in the past is refused."""
    with pytest.raises(InvalidRequest, match="expire_time"):
        await keys.create(ADMIN, create_request(expire_time=LONG_AGO))
    assert await keys.list(ADMIN, KeySelection(inactive=True)) == ([], "")


async def test_two_keys_of_a_subject_are_valid_at_once(keys, stores):
    """A subject may have two valid keys; the revocation of one does not affect the other."""
    old, new = [await keys.create(ADMIN, create_request()) for _ in range(2)]
    assert await stores.keys.find_key(old.key.key_id)
    assert await stores.keys.find_key(new.key.key_id)
    await keys.revoke(old.key.key_id)
    assert await stores.keys.find_key(old.key.key_id) is None
    assert await stores.keys.find_key(new.key.key_id)


async def test_look_ups_that_arrive_together(keys, stores):
    """Each of many look-ups at once finds its own key, and unknown ones find none."""
    ids = [
        (await keys.create(ADMIN, create_request(subject=f"u-{n}"))).key.key_id for n in range(5)
    ]
    await keys.revoke(ids[3])
    wanted = [*ids, "f" * 16, *ids]
    found = await asyncio.gather(*(stores.keys.find_key(key_id) for key_id in wanted))
    subjects = [stored and stored.principal.subject for stored in found]
    assert subjects == ["u-0", "u-1", "u-2", None, "u-4", None, "u-0", "u-1", "u-2", None, "u-4"]


async def test_good_keys_of_many(keys, stores, engine):
    """One read tells which keys are still good: neither revoked, expired, unknown nor removed."""
    end = in_an_hour()
    ids = [(await keys.create(ADMIN, create_request(expire_time=end))).key.key_id for _ in range(5)]
    assert set(await stores.keys.good_keys([*ids, "f" * 16])) == set(ids)
    await keys.revoke(ids[0])
    expire(engine, ids[1])
    with engine.begin() as connection:
        connection.execute(sa.delete(api_keys).where(api_keys.c.key_id == ids[2]))
    assert set(await stores.keys.good_keys(ids)) == set(ids[3:])


async def test_revocation_outside_of_the_service_is_seen(keys, stores, engine):
    """A key that the command line revokes is no longer good for any replica."""
    key_id = (await keys.create(ADMIN, create_request())).key.key_id
    assert await stores.keys.good_keys([key_id])
    assert KeyRing(engine).revoke(key_id)
    assert not await stores.keys.good_keys([key_id])


async def test_uses_of_many_keys_are_written(keys, engine, monkeypatch):
    """The uses of more keys than one statement takes are all written."""
    monkeypatch.setattr(stored_keys, "MAX_USES", 2)
    ids = [(await keys.create(ADMIN, create_request())).key.key_id for _ in range(5)]
    for key_id in ids:
        keys.note_use(key_id)
    await keys.write_uses()
    assert all(row["last_used_time"] for row in KeyRing(engine).rows())


async def test_revoking_twice_changes_nothing(keys):
    """A second revocation keeps the time of the first."""
    created = await keys.create(ADMIN, create_request())
    first = await keys.revoke(created.key.key_id)
    assert first.revoke_time is not None
    assert await keys.revoke(created.key.key_id) == first


async def test_unknown_key_is_not_found(keys):
    """The revocation of an unknown key fails and names the key id."""
    with pytest.raises(ApiKeyNotFound) as caught:
        await keys.revoke("f" * 16)
    assert caught.value.facts == {"key_id": "f" * 16}


def expire(engine, key_id: str) -> None:
    """Set the expire_time of a key to the past."""
    with engine.begin() as connection:
        connection.execute(
            sa.update(api_keys)
            .where(api_keys.c.key_id == key_id)
            .values(create_time=LONG_AGO, expire_time=LONG_AGO)
        )


async def test_expired_key_is_no_key(keys, stores, engine):
    """An expired key is not found, and listed only with inactive keys."""
    created = await keys.create(ADMIN, create_request(expire_time=in_an_hour()))
    expire(engine, created.key.key_id)
    assert await stores.keys.find_key(created.key.key_id) is None
    assert await keys.list(ADMIN, KeySelection()) == ([], "")
    found, _ = await keys.list(ADMIN, KeySelection(inactive=True))
    assert [key.key_id for key in found] == [created.key.key_id]


async def test_keys_are_listed_newest_first(keys):
    """Pages list every active key once, newest first."""
    created_ids = [(await keys.create(ADMIN, create_request())).key.key_id for _ in range(5)]
    await keys.revoke(created_ids[2])
    listed, token, pages = [], "", 0
    while token or not pages:
        page, token = await keys.list(ADMIN, KeySelection(), page_size=2, page_token=token)
        listed += page
        pages += 1
    assert pages == 2
    assert {key.key_id for key in listed} == {*created_ids} - {created_ids[2]}
    assert listed == sorted(listed, key=lambda k: (k.create_time, k.key_id), reverse=True)


async def test_token_of_a_page_is_for_its_reader_and_filters(keys):
    """A page token of another admin, or with other filters, is refused."""
    for _ in range(3):
        await keys.create(ADMIN, create_request())
    _, token = await keys.list(ADMIN, KeySelection(), page_size=1)
    assert token
    for by, selection in ((OTHER, KeySelection()), (ADMIN, KeySelection(inactive=True))):
        with pytest.raises(InvalidRequest, match="page_token"):
            await keys.list(by, selection, page_size=1, page_token=token)


async def test_keys_of_one_subject(keys):
    """The subject filter lists the keys of one subject."""
    await keys.create(ADMIN, create_request())
    bob = await keys.create(ADMIN, create_request(subject="bob"))
    assert await keys.list(ADMIN, KeySelection(subject="bob")) == ([bob.key], "")


async def test_use_is_written_once_a_minute(keys, engine):
    """The last use of a key is stored at most once a minute."""
    key_id = (await keys.create(ADMIN, create_request())).key.key_id

    async def last_used() -> datetime | None:
        keys.note_use(key_id)
        await keys.write_uses()
        [key], _ = await keys.list(ADMIN, KeySelection())
        found: datetime | None = key.last_used_time
        return found

    first = await last_used()
    assert first is not None
    assert await last_used() == first
    earlier = first - timedelta(seconds=61)
    with engine.begin() as connection:
        connection.execute(sa.update(api_keys).values(last_used_time=earlier))
    again = await last_used()
    assert again is not None
    assert again >= first


async def test_noted_uses_are_bounded(keys):
    """At most `MAX_UNWRITTEN_USES` used keys are kept between two writes."""
    for number in range(MAX_UNWRITTEN_USES + 10):
        keys.note_use(f"{number:016x}")
    assert len(keys._used) == MAX_UNWRITTEN_USES
    await keys.write_uses()
    assert not keys._used


def test_lifetime_counts_by_the_clock_of_the_database(engine):
    """A key with a lifetime expires that long after its create_time."""
    ring = KeyRing(engine)
    _, stored = issue_key(subject="alice", roles=[Role.CALLER])
    end = ring.add(stored, lifetime=timedelta(days=90))
    [row] = ring.rows()
    assert row["expire_time"] == end
    assert row["expire_time"] - row["create_time"] == timedelta(days=90)
    _, stored = issue_key(subject="alice", roles=[Role.CALLER])
    assert ring.add(stored) is None
