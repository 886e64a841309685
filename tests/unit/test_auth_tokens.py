"""Auth with tokens: how long one is trusted from memory, and what is noted of keys."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from grpc import StatusCode

from milepost.access import authenticator
from milepost.access.authenticator import CACHE_TTL_S
from milepost.access.tokens import LEEWAY_S, Tokens, Verified
from tests.unit.signing import ISSUER, NOW, Endpoint, claims, rsa_key, token
from tests.unit.test_auth import Gate
from tests.unit.test_tokens import Verifier


class Counting(Tokens):
    """Verifies tokens, and counts how often."""

    count = 0

    async def verify(self, token: str) -> Verified:
        """Verify as ever."""
        self.count += 1
        return await super().verify(token)


class TokenGate(Gate):
    """A gate that trusts the issuer too; its two clocks go together."""

    def __init__(self, url: str, endpoint: Endpoint) -> None:
        self._verifier = Verifier(endpoint)
        self.tokens = Counting(
            self._verifier.tokens._issuers, clock=lambda: NOW + self.now - self.start
        )
        self.used: list[str] = []
        super().__init__(url, tokens=self.tokens, note_use=self.used.append)
        self.start = self.now


@pytest.fixture
async def gate(sqlite_url: str) -> AsyncIterator[TokenGate]:
    """A server that listens, over a fresh database, and trusts an issuer."""
    async with Endpoint() as endpoint, TokenGate(sqlite_url, endpoint) as gate:
        yield gate
        await gate.tokens.close()


async def test_fresh_token_is_trusted_without_verifying(gate):
    """Within 4 s a token is verified once, however often it comes, and again after that."""
    text = token()
    answers = await asyncio.gather(*(gate.ask(text) for _ in range(30)))
    assert set(answers) == {f"{ISSUER}|alice"}
    assert gate.tokens.count == 1
    gate.now += CACHE_TTL_S + 0.001
    assert await gate.ask(text) == f"{ISSUER}|alice"
    assert gate.tokens.count == 2
    assert gate.lookups == 0


async def test_token_is_not_trusted_from_memory_beyond_its_end(gate):
    """A token that ends in a second is remembered for a second, and in the leeway not at all."""
    text = token(claims(exp=NOW + 1))
    assert await gate.ask(text) == f"{ISSUER}|alice"
    gate.now += 1.001
    for count in (2, 3):
        assert await gate.ask(text) == f"{ISSUER}|alice"
        assert gate.tokens.count == count
    gate.now += LEEWAY_S
    assert await gate.ask(text) is StatusCode.UNAUTHENTICATED


async def test_refused_token_is_not_remembered(gate):
    """What is refused leaves nothing in memory: whoever sends garbage fills nothing."""
    forged = token(key=rsa_key())
    for count in (1, 2):
        assert await gate.ask(forged) is StatusCode.UNAUTHENTICATED
        assert gate.tokens.count == count
    assert not gate.auth._cache


async def test_remembered_tokens_are_bounded(gate, monkeypatch):
    """However many valid tokens come, only so many are remembered."""
    monkeypatch.setattr(authenticator, "MAX_CACHED", 5)
    for number in range(12):
        assert await gate.ask(token(claims(jti=str(number)))) == f"{ISSUER}|alice"
    assert len(gate.auth._cache) <= 5


async def test_text_without_the_form_of_a_token_is_not_verified(gate):
    """Garbage is refused before anybody reads it."""
    for text in ("x", "a.b", "a.b.c.d", "a.b.", "mp_x"):
        assert await gate.ask(text) is StatusCode.UNAUTHENTICATED
    assert gate.tokens.count == 0


async def test_use_of_a_key_is_noted_when_it_is_looked_up(gate):
    """The use of a key is noted once in 4 s and not at every call; of a wrong one never."""
    key = gate.key()
    for _ in range(3):
        assert await gate.ask(key) == "alice"
    assert gate.used == [key.split("_")[1]]
    gate.now += CACHE_TTL_S + 0.001
    assert await gate.ask(key) == "alice"
    assert len(gate.used) == 2
    gate.ring.revoke(key.split("_")[1])
    gate.now += CACHE_TTL_S + 0.001
    assert await gate.ask(key) is StatusCode.UNAUTHENTICATED
    assert len(gate.used) == 2
