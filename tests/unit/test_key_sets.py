"""Key sets of an issuer: their fetches, and the keys in use while the issuer does not answer."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from milepost.access.key_sets import (
    COOLDOWN_S,
    MAX_AGE_S,
    MAX_BYTES,
    MAX_KEYS,
    REFRESH_AGE_S,
    BadKeySet,
    KeySet,
    keys_from,
)
from milepost.domain.errors import IdentityProviderUnavailable
from milepost.domain.ports import KeySetSource
from milepost.web import key_sets as sources
from milepost.web.key_sets import FileKeySet, UrlKeySet
from tests.unit.signing import KEYS, Endpoint, claims, jwk, key_set, rsa_key, token
from tests.unit.test_tokens import Verifier

ALGORITHMS = ("RS256", "ES256", "EdDSA")
HOUR = 3_600
STRANGER = rsa_key()


class Keys:
    """A key set over a real endpoint, and its clock."""

    def __init__(self, source: KeySetSource) -> None:
        self.now = 0.0
        self.set = KeySet("issuer", source, ALGORITHMS, clock=lambda: self.now)

    async def knows(self, key_id: str) -> bool:
        """Return True if the key is found, after background fetches have ended."""
        found = await self.set.find(key_id, key_id if key_id in ALGORITHMS else "RS256")
        if self.set._refresh is not None:
            await self.set._refresh
        return found is not None


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    """The endpoint of the issuer."""
    async with Endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def keys(endpoint) -> AsyncIterator[Keys]:
    """A set that has not been fetched yet."""
    keys = Keys(UrlKeySet(endpoint.url))
    yield keys
    await keys.set.close()


async def test_keys_are_fetched_once_while_they_are_fresh(keys, endpoint):
    """The first token fetches the set, which is used until it is ten minutes old."""
    for keys.now in (0, 1, COOLDOWN_S, REFRESH_AGE_S):
        for algorithm in ALGORITHMS:
            assert await keys.knows(algorithm)
    assert endpoint.fetches == 1
    keys.now = REFRESH_AGE_S + 1
    assert await keys.knows("RS256")
    assert endpoint.fetches == 2


async def test_old_keys_do_not_wait_for_new_ones(keys, endpoint):
    """While an old set is fetched again in the background, its keys are used at once."""
    assert await keys.knows("RS256")
    endpoint.held.clear()
    keys.now = REFRESH_AGE_S + 1
    assert await asyncio.wait_for(keys.set.find("RS256", "RS256"), 5) is not None
    endpoint.held.set()


async def test_calls_share_a_fetch(keys, endpoint):
    """Concurrent first tokens share one request."""
    assert all(await asyncio.gather(*(keys.knows("RS256") for _ in range(500))))
    assert endpoint.fetches == 1


async def test_unknown_keys_cause_at_most_one_fetch_in_30_seconds(keys, endpoint):
    """10,000 tokens with invented key ids over five minutes cause at most one request per 30 s."""
    for number in range(10_000):
        keys.now = number * 0.03
        assert not await keys.knows(f"invented-{number}")
        assert endpoint.fetches <= 1 + keys.now / COOLDOWN_S
    assert keys.now == pytest.approx(300, abs=1)
    assert endpoint.fetches == 10


async def test_unknown_keys_at_once_cause_one_fetch(keys, endpoint):
    """10,000 invented key ids at the same moment cause one request."""
    found = await asyncio.gather(*(keys.knows(f"invented-{n}") for n in range(10_000)))
    assert not any(found)
    assert endpoint.fetches == 1


async def test_new_key_of_the_issuer_is_found(keys, endpoint):
    """A key that the issuer adds is found for the first token that names it, after the cooldown."""
    fresh = rsa_key()
    assert await keys.knows("RS256")
    endpoint.body = json.dumps(key_set(**KEYS, fresh=fresh)).encode()
    keys.now = COOLDOWN_S - 1
    assert not await keys.knows("fresh")
    keys.now = COOLDOWN_S
    assert await keys.knows("fresh")
    assert endpoint.fetches == 2


async def test_withdrawn_key_is_refused(keys, endpoint):
    """A key that the issuer removes is refused after the next fetch of the set."""
    assert await keys.knows("RS256")
    endpoint.body = json.dumps(key_set(ES256=KEYS["ES256"])).encode()
    keys.now = REFRESH_AGE_S + 1
    assert await keys.knows("RS256")  # the old key is used while the set is fetched
    assert not await keys.knows("RS256")
    assert await keys.knows("ES256")


async def test_outage_of_an_hour_refuses_no_valid_token(endpoint):
    """While the endpoint of keys is unavailable for an hour, every valid token is accepted."""
    verifier = Verifier(endpoint)
    start = verifier.now
    assert await verifier.principal(token()) is not None
    endpoint.status = 503
    for second in range(0, HOUR + 1, 10):
        verifier.ticks, verifier.now = second, start + second
        assert await verifier.principal(token(claims(start + second))) is not None
        forged = token(claims(start + second), key=STRANGER)
        assert await verifier.principal(forged) is None
        if verifier.keys._refresh is not None:
            await verifier.keys._refresh
    assert endpoint.fetches == 1 + (HOUR - REFRESH_AGE_S) / COOLDOWN_S
    await verifier.tokens.close()


async def test_outage_with_refused_connections(keys, endpoint):
    """When the endpoint refuses connections, the last good set stays in use."""
    assert await keys.knows("RS256")
    await endpoint._runner.cleanup()
    for keys.now in (REFRESH_AGE_S + 1, REFRESH_AGE_S + 2 * COOLDOWN_S, HOUR, MAX_AGE_S):
        assert await keys.knows("RS256")


async def test_last_good_set_ends_after_a_day(keys, endpoint):
    """A set that could not be renewed for a day is not used: the call may be repeated."""
    assert await keys.knows("RS256")
    endpoint.status = 500
    keys.now = MAX_AGE_S + 1
    with pytest.raises(IdentityProviderUnavailable):
        await keys.knows("RS256")
    endpoint.status = 200
    keys.now += COOLDOWN_S
    assert await keys.knows("RS256")


async def test_no_set_at_all_is_no_verdict(keys, endpoint):
    """Before the first fetch succeeds a token is not judged, and the call may be repeated."""
    endpoint.status = 500
    for keys.now in (0, 1, COOLDOWN_S - 1):
        with pytest.raises(IdentityProviderUnavailable):
            await keys.knows("RS256")
    assert endpoint.fetches == 1
    endpoint.status = 200
    keys.now = COOLDOWN_S
    assert await keys.knows("RS256")


BAD_ANSWERS = {
    "too large": b" " * (MAX_BYTES + 1) + json.dumps(key_set(**KEYS)).encode(),
    "no JSON": b"<html>",
    "no UTF-8": b"\xff\xfe\xff",
    "deep": b"[" * 100_000,
    "no keys": b"{}",
    "a list": b"[]",
    "keys no list": b'{"keys": {}}',
    "no key": b'{"keys": []}',
    "too many": json.dumps({"keys": [{}] * (MAX_KEYS + 1)}).encode(),
    "none usable": json.dumps({"keys": [{"kty": "oct", "k": "AA", "kid": "RS256"}]}).encode(),
    "wrong curve": json.dumps(
        {"keys": [jwk(ec.generate_private_key(ec.SECP384R1()), kid="ES256")]}
    ).encode(),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
async def test_bad_answer_leaves_the_last_good_set(keys, endpoint, name):
    """An answer that is too large, or has no usable key, does not replace the set."""
    assert await keys.knows("RS256")
    endpoint.body = BAD_ANSWERS[name]
    keys.now = REFRESH_AGE_S + 1
    for _ in range(2):
        assert await keys.knows("RS256")
    assert endpoint.fetches == 2


async def test_redirect_is_not_followed(keys, endpoint):
    """The service follows no redirect of the endpoint."""
    endpoint.status, endpoint.headers = 302, {"Location": f"{endpoint.base}/elsewhere"}
    with pytest.raises(IdentityProviderUnavailable):
        await keys.knows("RS256")


async def test_fetch_is_bounded_in_time(keys, endpoint, monkeypatch):
    """An endpoint that never answers delays a call by at most the timeout of a fetch."""
    monkeypatch.setattr(sources, "FETCH_TIMEOUT_S", 0.05)
    endpoint.held.clear()
    with pytest.raises(IdentityProviderUnavailable):
        await asyncio.wait_for(keys.knows("RS256"), 5)
    endpoint.held.set()


async def test_cancelled_call_leaves_the_fetch_to_the_others(keys, endpoint):
    """A call that is cancelled during a fetch does not affect the other calls that wait."""
    endpoint.held.clear()
    first = asyncio.create_task(keys.knows("RS256"))
    second = asyncio.create_task(keys.knows("RS256"))
    await asyncio.wait_for(endpoint.asked.wait(), 5)
    first.cancel()
    endpoint.held.set()
    assert await second
    assert first.cancelled()
    assert endpoint.fetches == 1


async def test_keys_may_come_from_a_file(tmp_path):
    """A file of keys is read like an endpoint, and read again when it is replaced."""
    path = tmp_path / "keys.json"
    keys = Keys(FileKeySet(path))
    with pytest.raises(IdentityProviderUnavailable):
        await keys.knows("RS256")
    path.write_text(json.dumps(key_set(RS256=KEYS["RS256"])), encoding="utf-8")
    keys.now = COOLDOWN_S
    assert await keys.knows("RS256")
    path.write_text(json.dumps(key_set(ES256=KEYS["ES256"])), encoding="utf-8")
    keys.now = 2 * COOLDOWN_S
    assert await keys.knows("ES256")


def test_problem_of_a_set_quotes_nothing_of_it():
    """The logged problem of a bad set repeats none of its bytes."""
    with pytest.raises(BadKeySet) as caught:
        keys_from(b'{"keys": [{"kty": "oct", "k": "secret"}]}', ALGORITHMS)
    assert "secret" not in str(caught.value)
