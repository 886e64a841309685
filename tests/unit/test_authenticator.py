"""The authenticator without a server: certificates, no limit, and look-ups that fail late."""

import asyncio

import pytest

from milepost.access import authenticator
from milepost.access.authenticator import Authenticator
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
PEER = "192.0.2.7"


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


@pytest.mark.parametrize(
    "names", [{"dns:encoder"}, {"dns:encoder", "dns:other"}, ["dns:encoder", "dns:encoder"]]
)
async def test_certificate_authenticates_its_principal(names):
    """A call without a credential has the principal of a name in its certificate."""
    found = await Authenticator(Keys(), certificates=CERTIFICATES).authenticate(None, PEER, names)
    assert found == ENCODER


@pytest.mark.parametrize("names", [(), {"dns:other"}, {"dns:encoder", "uri:spiffe://archive"}])
async def test_certificate_of_no_single_principal_is_refused(names):
    """A certificate whose names match no principal, or two, authenticates no call."""
    with pytest.raises(Unauthenticated):
        await Authenticator(Keys(), certificates=CERTIFICATES).authenticate(None, PEER, names)


async def test_credential_takes_precedence_over_the_certificate():
    """A credential takes precedence over the certificate, even if the credential is bad."""
    keys = Keys()
    auth = Authenticator(keys, certificates=CERTIFICATES)
    found = await auth.authenticate(keys.issue("alice"), PEER, {"dns:encoder"})
    assert found.subject == "alice"
    with pytest.raises(Unauthenticated):
        await auth.authenticate("Bearer bad", PEER, {"dns:encoder"})


async def test_certificate_without_trusted_ones_is_refused():
    """Where no certificates are trusted, a call without a credential counts as a bad one."""
    auth = Authenticator(Keys(), failures_per_minute=1)
    with pytest.raises(Unauthenticated):
        await auth.authenticate(None, PEER, {"dns:encoder"})
    with pytest.raises(RateLimited):
        await auth.authenticate(None, PEER, {"dns:encoder"})


async def test_bad_credentials_without_a_limit():
    """With a limit of 0 every bad credential is verified."""
    auth = Authenticator(Keys(), failures_per_minute=0)
    for _ in range(MAX_FAILURES_PER_MINUTE + 5):
        with pytest.raises(Unauthenticated):
            await auth.authenticate("Bearer bad", PEER)


async def test_late_failure_leaves_the_next_look_up_alone(monkeypatch):
    """A look-up that fails after its cache entry was dropped does not drop the entry after it."""
    monkeypatch.setattr(authenticator, "MAX_CACHED", 1)
    keys = Keys()
    auth, alice, bob = Authenticator(keys), keys.issue("alice"), keys.issue("bob")
    keys.go.clear()
    late = asyncio.create_task(auth.authenticate(alice, PEER))
    await until(lambda: keys.look_ups == 1)
    keys.go, held = asyncio.Event(), keys.go
    keys.go.set()
    assert (await auth.authenticate(bob, PEER)).subject == "bob"  # drops the entry of alice
    keys.is_away = True
    held.set()
    with pytest.raises(StoreUnavailable):
        await late
    assert (await auth.authenticate(bob, PEER)).subject == "bob"
    assert keys.look_ups == 2


def test_unauthenticated_call_has_no_principal():
    """The principal of an unauthenticated call raises an error."""
    call = Call(Method(name="test"), PEER)
    assert call.authenticated is None
    with pytest.raises(LookupError):
        _ = call.principal
    call.authenticated = ENCODER
    assert call.principal is ENCODER
