"""Authentication of tokens: the cache, and the recorded use of keys."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc import StatusCode

from milepost.access import authenticator
from milepost.access.authenticator import CACHE_TTL_S
from milepost.access.tokens import LEEWAY_S, Tokens, Verified
from tests.unit.signing import ISSUER, NOW, Endpoint, claims, rsa_key, token
from tests.unit.test_auth import AuthServer
from tests.unit.test_tokens import Verifier


class Counting(Tokens):
    """A verifier that counts its verifications."""

    count = 0

    async def verify(self, token: str) -> Verified:
        """Verify the token, and count that."""
        self.count += 1
        return await super().verify(token)


class TokenServer(AuthServer):
    """A server that also trusts the issuer; both of its clocks follow `now`."""

    def __init__(self, url: str, endpoint: Endpoint) -> None:
        self._verifier = Verifier(endpoint)
        self.tokens = Counting(
            self._verifier.tokens._issuers, clock=lambda: NOW + self.now - self.start
        )
        self.used: list[str] = []
        super().__init__(url, tokens=self.tokens, note_use=self.used.append)
        self.start = self.now


@pytest.fixture
async def server(sqlite_url: str) -> AsyncIterator[TokenServer]:
    """A running server over a fresh database, which trusts an issuer."""
    async with Endpoint() as endpoint, TokenServer(sqlite_url, endpoint) as server:
        yield server
        await server.tokens.close()


async def test_cached_token_is_trusted_without_verifying(server):
    """A token is verified once in 4 s, however often it is sent, and again after that."""
    text = token()
    answers = await asyncio.gather(*(server.ask(text) for _ in range(30)))
    assert set(answers) == {f"{ISSUER}|alice"}
    assert server.tokens.count == 1
    server.now += CACHE_TTL_S + 0.001
    assert await server.ask(text) == f"{ISSUER}|alice"
    assert server.tokens.count == 2
    assert server.lookups == 0


async def test_token_is_not_cached_beyond_its_end(server):
    """A token that ends in a second is cached for a second, and not at all in the leeway."""
    text = token(claims(exp=NOW + 1))
    assert await server.ask(text) == f"{ISSUER}|alice"
    server.now += 1.001
    for count in (2, 3):
        assert await server.ask(text) == f"{ISSUER}|alice"
        assert server.tokens.count == count
    server.now += LEEWAY_S
    assert await server.ask(text) is StatusCode.UNAUTHENTICATED


async def test_refused_token_is_not_cached(server):
    """A refused token is not cached, so that forged tokens fill no memory."""
    forged = token(key=rsa_key())
    for count in (1, 2):
        assert await server.ask(forged) is StatusCode.UNAUTHENTICATED
        assert server.tokens.count == count
    assert not server.auth._cache


async def test_cached_tokens_are_bounded(server, monkeypatch):
    """The cache holds a bounded number of tokens, however many valid ones are sent."""
    monkeypatch.setattr(authenticator, "MAX_CACHED", 5)
    for number in range(12):
        assert await server.ask(token(claims(jti=str(number)))) == f"{ISSUER}|alice"
    assert len(server.auth._cache) <= 5


async def test_malformed_token_is_not_verified(server):
    """A text without the form of a token is refused without verification."""
    for text in ("x", "a.b", "a.b.c.d", "a.b.", "mp_x"):
        assert await server.ask(text) is StatusCode.UNAUTHENTICATED
    assert server.tokens.count == 0


async def test_use_of_a_key_is_recorded_when_it_is_looked_up(server):
    """The use of a key is recorded once in 4 s, and that of a revoked one never."""
    key = server.key()
    for _ in range(3):
        assert await server.ask(key) == "alice"
    assert server.used == [key.split("_")[1]]
    server.now += CACHE_TTL_S + 0.001
    assert await server.ask(key) == "alice"
    assert len(server.used) == 2
    server.ring.revoke(key.split("_")[1])
    server.now += CACHE_TTL_S + 0.001
    assert await server.ask(key) is StatusCode.UNAUTHENTICATED
    assert len(server.used) == 2


async def test_use_of_a_confirmed_key_is_recorded_once_a_minute(server):
    """The use of a key that is confirmed, and so not looked up, is recorded about once a minute."""
    key = server.key()
    for _ in range(50):
        server.now += 3.0
        assert await server.ask(key) == "alice"
        await server.auth.confirm_keys()
    assert server.lookups == 1
    assert len(server.used) == 3
    for _ in range(20):
        server.now += 3.0
        await server.auth.confirm_keys()
    assert len(server.used) == 3
