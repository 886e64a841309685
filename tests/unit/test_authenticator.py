"""The authenticator without a server: certificates, no limit, and look-ups that fail late."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from milepost.access import authenticator
from milepost.access.authenticator import CACHE_TTL_S, CONFIRMED_USE_S, Authenticator
from milepost.access.bad_credentials import MAX_FAILURES_PER_MINUTE
from milepost.access.call import Call
from milepost.access.certificates import Certificates
from milepost.access.method import Method
from milepost.domain.api_key import StoredKey, issue_key
from milepost.domain.errors import RateLimited, StoreUnavailable, Unauthenticated
from milepost.domain.operation import Principal, Role
from tests.waiting import until

ENCODER = Principal(
    subject="encoder", roles=frozenset({Role.WORKER}), credential_id="certificate dns:encoder"
)
ARCHIVE = Principal(
    subject="archive", roles=frozenset({Role.WORKER}), credential_id="certificate dns:archive"
)
CERTIFICATES = Certificates({"dns:encoder": ENCODER, "uri:spiffe://archive": ARCHIVE})


def peer() -> str:
    """Return the address of every call."""
    return "192.0.2.7"


def encoder() -> set[str]:
    """Return the names of the certificate of the encoder."""
    return {"dns:encoder"}


def never() -> Any:
    """Fail: the caller does not need this."""
    raise AssertionError


class Keys:
    """A store of keys whose answers the test delays or fails."""

    def __init__(self) -> None:
        self.known: dict[str, StoredKey] = {}
        self.go = asyncio.Event()
        self.go.set()
        self.is_away = False
        self.look_ups = 0

    def issue(self, subject: str) -> str:
        """Return the credential of a new key."""
        key, stored = issue_key(subject=subject, roles=[Role.CALLER])
        self.known[stored.principal.credential_id] = stored
        return f"Bearer {key}"

    async def find_key(self, key_id: str) -> StoredKey | None:
        """Return the key with this public id."""
        self.look_ups += 1
        await self.go.wait()
        if self.is_away:
            raise StoreUnavailable
        return self.known.get(key_id)

    async def good_keys(self, key_ids: Collection[str]) -> Collection[str]:
        """Return those of the keys that are known."""
        return self.known.keys() & key_ids


@pytest.mark.parametrize(
    "names", [{"dns:encoder"}, {"dns:encoder", "dns:other"}, ["dns:encoder", "dns:encoder"]]
)
async def test_certificate_authenticates_its_principal(names):
    """A call without a credential has the principal of a name in its certificate."""
    found = await Authenticator(Keys(), certificates=CERTIFICATES).authenticate(
        None, peer, lambda: names
    )
    assert found == ENCODER


@pytest.mark.parametrize("names", [(), {"dns:other"}, {"dns:encoder", "uri:spiffe://archive"}])
async def test_certificate_of_no_single_principal_is_refused(names):
    """A certificate whose names match no principal, or two, authenticates no call."""
    with pytest.raises(Unauthenticated):
        await Authenticator(Keys(), certificates=CERTIFICATES).authenticate(
            None, peer, lambda: names
        )


async def test_credential_takes_precedence_over_the_certificate():
    """A credential takes precedence over the certificate, even if the credential is bad."""
    keys = Keys()
    auth = Authenticator(keys, certificates=CERTIFICATES)
    found = await auth.authenticate(keys.issue("alice"), peer, encoder)
    assert found.subject == "alice"
    with pytest.raises(Unauthenticated):
        await auth.authenticate("Bearer bad", peer, encoder)


async def test_certificate_without_trusted_ones_is_refused():
    """Where no certificates are trusted, a call without a credential counts as a bad one."""
    auth = Authenticator(Keys(), failures_per_minute=1)
    with pytest.raises(Unauthenticated):
        await auth.authenticate(None, peer, encoder)
    with pytest.raises(RateLimited):
        await auth.authenticate(None, peer, encoder)


async def test_bad_credentials_without_a_limit():
    """With a limit of 0 every bad credential is verified."""
    auth = Authenticator(Keys(), failures_per_minute=0)
    for _ in range(MAX_FAILURES_PER_MINUTE + 5):
        with pytest.raises(Unauthenticated):
            await auth.authenticate("Bearer bad", peer)


async def test_late_failure_leaves_the_next_look_up_alone(monkeypatch):
    """A look-up that fails after its cache entry was dropped does not drop the entry after it."""
    monkeypatch.setattr(authenticator, "MAX_CACHED", 1)
    keys = Keys()
    auth, alice, bob = Authenticator(keys), keys.issue("alice"), keys.issue("bob")
    keys.go.clear()
    late = asyncio.create_task(auth.authenticate(alice, peer))
    await until(lambda: keys.look_ups == 1)
    keys.go, held = asyncio.Event(), keys.go
    keys.go.set()
    assert (await auth.authenticate(bob, peer)).subject == "bob"  # drops the entry of alice
    keys.is_away = True
    held.set()
    with pytest.raises(StoreUnavailable):
        await late
    assert (await auth.authenticate(bob, peer)).subject == "bob"
    assert keys.look_ups == 2


async def test_address_and_certificate_are_read_when_needed():
    """A cached credential needs no address; without trusted certificates, none is read."""
    keys = Keys()
    auth, alice = Authenticator(keys, certificates=CERTIFICATES), keys.issue("alice")
    await auth.authenticate(alice, peer, never)
    assert (await auth.authenticate(alice, never, never)).subject == "alice"
    with pytest.raises(Unauthenticated):
        await Authenticator(keys).authenticate(None, peer, never)


async def test_cancelled_verifications_hold_no_place():
    """A call that is cancelled while it is verified, or waits for that, leaves its place."""
    keys = Keys()
    auth = Authenticator(keys, failures_per_minute=1)
    keys.go.clear()
    calls = [
        asyncio.create_task(auth.authenticate(keys.issue(f"user-{n}"), peer)) for n in range(9)
    ]
    await until(lambda: keys.look_ups == 1)
    for call in calls[:-1]:
        call.cancel()
    await asyncio.wait(calls[:-1])
    keys.go.set()
    assert (await calls[-1]).subject == "user-8"


@pytest.mark.parametrize("subject", ["web:alice", "WEB:alice"])
async def test_key_of_a_subject_of_an_issuer_is_refused(subject, lines):
    """A key never authenticates a subject of a trusted issuer, even an older key."""
    keys = Keys()
    key = keys.issue(subject)
    assert (await Authenticator(keys).authenticate(key, peer)).subject == subject
    auth = Authenticator(keys, reserved_subjects=("web:",))
    with pytest.raises(Unauthenticated):
        await auth.authenticate(key, peer)
    [line] = [line for line in lines() if line["event"] == "API key refused"]
    assert line["problem"] == "its subject belongs to a trusted issuer"
    assert (await auth.authenticate(keys.issue("alice"), peer)).subject == "alice"


class Expiry:
    """A good credential whose cache entry has expired, at an address beyond its limit."""

    def __init__(self) -> None:
        self._now = 1_000.0
        self.keys = Keys()
        self.auth = Authenticator(self.keys, failures_per_minute=1, clock=lambda: self._now)
        self.alice = self.keys.issue("alice")

    async def reach(self) -> None:
        """Authenticate, use up the limit of the address, and let the cache entry expire."""
        await self.authenticate()
        with pytest.raises(Unauthenticated):
            await self.auth.authenticate("Bearer bad", peer)
        self._now += CACHE_TTL_S + 0.1

    async def authenticate(self) -> str:
        """Return the subject of the credential."""
        return (await self.auth.authenticate(self.alice, peer)).subject


async def test_limit_of_bad_credentials_spares_calls_that_share_a_look_up():
    """Concurrent calls with a good credential pass while it is looked up again."""
    expiry = Expiry()
    await expiry.reach()
    assert await asyncio.gather(*(expiry.authenticate() for _ in range(3))) == ["alice"] * 3
    assert expiry.keys.look_ups == 2


async def test_limit_of_bad_credentials_spares_a_good_one_after_an_outage():
    """A good credential is looked up again after its look-up failed with the store."""
    expiry = Expiry()
    await expiry.reach()
    expiry.keys.is_away = True
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await expiry.authenticate()
    expiry.keys.is_away = False
    assert await expiry.authenticate() == "alice"


async def test_limit_of_bad_credentials_covers_a_revoked_one():
    """A credential that is revoked counts as a bad one after its next look-up."""
    expiry = Expiry()
    await expiry.reach()
    expiry.keys.known.clear()
    with pytest.raises(Unauthenticated):
        await expiry.authenticate()
    with pytest.raises(RateLimited):
        await expiry.authenticate()


async def test_long_call_uses_its_key_as_long_as_it_lasts():
    """The key of a watch is confirmed and its use noted, however long ago the watch began."""
    now, keys, noted = [1_000.0], Keys(), list[str]()
    auth = Authenticator(keys, note_use=noted.append, clock=lambda: now[0])
    alice = keys.issue("alice")
    await auth.authenticate(alice, peer)
    async with auth.while_good(alice):
        now[0] += 10 * CONFIRMED_USE_S
        await auth.confirm_keys()
    await auth.authenticate(alice, peer)
    assert (keys.look_ups, len(noted)) == (1, 2)


async def test_long_calls_end_with_their_key_alone():
    """A revocation ends all calls of the key, once, and no other one."""
    keys = Keys()
    auth = Authenticator(keys)
    alice, bob = keys.issue("alice"), keys.issue("bob")

    async def call(credential: str | None) -> None:
        async with auth.while_good(credential):
            await asyncio.Event().wait()

    ending = [asyncio.create_task(call(alice)) for _ in range(3)]
    lasting = [asyncio.create_task(call(credential)) for credential in (bob, None)]
    await asyncio.sleep(0)
    del keys.known[alice.split("_")[1]]
    for _ in range(2):
        await auth.confirm_keys()
    found = await asyncio.gather(*ending, return_exceptions=True)
    assert [type(each) for each in found] == 3 * [Unauthenticated]
    assert not any(task.done() for task in lasting)
    for task in lasting:
        task.cancel()


async def test_time_limit_inside_of_a_long_call_is_no_revocation():
    """A `TimeoutError` of the call itself passes as it is."""
    keys = Keys()
    with pytest.raises(TimeoutError):
        async with Authenticator(keys).while_good(keys.issue("alice")):
            raise TimeoutError


def test_unauthenticated_call_has_no_principal():
    """The principal of an unauthenticated call raises an error."""
    call = Call(Method(name="test"), peer())
    assert call.authenticated is None
    with pytest.raises(LookupError):
        _ = call.principal
    call.authenticated = ENCODER
    assert call.principal is ENCODER
