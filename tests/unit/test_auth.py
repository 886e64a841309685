"""Auth: how long a key is trusted, and how often the store is asked about it."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from typing import Any, Self

import grpc
import pytest
import sqlalchemy as sa
from google.protobuf import wrappers_pb2
from grpc import StatusCode

from milepost.access import authenticator
from milepost.access.authenticator import CACHE_TTL_S, Authenticator
from milepost.access.bad_credentials import MAX_FAILURES_PER_MINUTE
from milepost.domain.api_key import issue_key
from milepost.domain.operation import Role
from milepost.rpc.interceptors.access import AuthInterceptor
from milepost.rpc.interceptors.chain import InterceptedServer
from milepost.rpc.interceptors.errors import Errors
from milepost.rpc.methods import METHODS, PUBLIC, method_of
from milepost.storage.api_keys import KeyRing
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores

SERVICE, METHOD = "milepost.v1.OperationService", "GetOperation"
SECONDS = 10.0
Text = wrappers_pb2.StringValue


class Gate:
    """A server whose one method answers with the subject of its caller."""

    def __init__(self, url: str, **access: Any) -> None:
        self.now = 1_000.0
        self.lookups = 0
        self.engine = open_engine(url)
        self.ring = KeyRing(open_engine(url))
        self._batchers = Batchers(self.engine)
        self.auth = Authenticator(Stores(self._batchers).keys, clock=lambda: self.now, **access)
        sa.event.listen(self.engine, "before_cursor_execute", self._count)
        self._server = grpc.aio.server()
        chained = InterceptedServer(self._server, (Errors(), AuthInterceptor(self.auth)))
        handler = grpc.unary_unary_rpc_method_handler(
            self._answer, Text.FromString, Text.SerializeToString
        )
        chained.add_registered_method_handlers(SERVICE, {METHOD: handler, "Unlisted": handler})
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    def _count(self, _connection, _cursor, statement, *_more) -> None:
        self.lookups += "FROM api_keys" in statement

    async def _answer(self, _request: Any, call: Any) -> Any:
        return Text(value=call.principal.subject)

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._server.start()
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop."""
        await self._channel.close()
        await self._server.stop(0)
        await self._batchers.close()

    def key(self, subject: str = "alice", *roles: Role) -> str:
        """A valid key."""
        key, stored = issue_key(subject=subject, roles=roles or [Role.CALLER])
        self.ring.add(stored)
        return key

    async def ask(self, key: str, method: str = METHOD) -> str | StatusCode:
        """The subject that the key speaks for, or the code that it is refused with."""
        call = self._channel.unary_unary(
            f"/{SERVICE}/{method}", Text.SerializeToString, Text.FromString
        )
        header = (("authorization", f"Bearer {key}"),)
        try:
            answer: str = (await call(Text(), metadata=header, timeout=SECONDS)).value
        except grpc.aio.AioRpcError as error:
            return error.code()
        return answer


@pytest.fixture
async def gate(sqlite_url: str) -> AsyncIterator[Gate]:
    """A server that listens, over a fresh database."""
    async with Gate(sqlite_url) as gate:
        yield gate


async def test_key_speaks_for_its_subject(gate):
    """Every call has the principal of its own key, also when they run at once."""
    keys = {subject: gate.key(subject) for subject in ("alice", "bob", "carol")}
    answers = await asyncio.gather(*(gate.ask(keys[s]) for s in list(keys) * 10))
    assert answers == list(keys) * 10


async def test_fresh_key_is_trusted_without_asking(gate):
    """Within 4 s the store is asked once about a key, and again after that."""
    key = gate.key()
    for _ in range(3):
        assert await gate.ask(key) == "alice"
    assert gate.lookups == 1
    gate.now += CACHE_TTL_S + 0.001
    assert await gate.ask(key) == "alice"
    assert gate.lookups == 2


async def test_calls_share_a_look_up(gate):
    """Many first calls with one key share one look-up."""
    key = gate.key()
    assert set(await asyncio.gather(*(gate.ask(key) for _ in range(30)))) == {"alice"}
    assert gate.lookups == 1


async def test_revoked_key_is_refused_when_it_is_asked_about_again(gate):
    """A revoked key works for at most 4 s more (spec: 5 s)."""
    key = gate.key()
    assert await gate.ask(key) == "alice"
    gate.ring.revoke(key.split("_")[1])
    assert await gate.ask(key) == "alice"
    gate.now += CACHE_TTL_S + 0.001
    assert await gate.ask(key) is StatusCode.UNAUTHENTICATED
    assert CACHE_TTL_S < 5.0


async def test_text_that_is_no_key_is_never_looked_up(gate):
    """What has not the form of a key, or a wrong checksum, is refused without the store."""
    key = gate.key()
    for text in ("", "x", key[:-1], key + "x", key[:-1] + ("1" if key[-1] == "0" else "0")):
        assert await gate.ask(text) is StatusCode.UNAUTHENTICATED
    assert gate.lookups == 0


async def test_unknown_key_is_remembered_as_such(gate):
    """A well-formed key that nobody issued is looked up once, not at every call."""
    stranger, _ = issue_key(subject="mallory", roles=[Role.ADMIN])
    for _ in range(3):
        assert await gate.ask(stranger) is StatusCode.UNAUTHENTICATED
    assert gate.lookups == 1


async def test_memory_is_bounded(gate, monkeypatch):
    """However many keys are tried, only so many are remembered."""
    monkeypatch.setattr(authenticator, "MAX_CACHED", 5)
    for _ in range(12):
        stranger, _ = issue_key(subject="mallory", roles=[Role.ADMIN])
        assert await gate.ask(stranger) is StatusCode.UNAUTHENTICATED
    assert len(gate.auth._cache) <= 5


async def test_failed_look_up_is_not_remembered(gate):
    """When the store fails the call is UNAVAILABLE, and the next one asks again."""
    key = gate.key()

    def fail(*_arguments: object) -> None:
        raise sa.exc.OperationalError("SELECT", {}, _broken())

    sa.event.listen(gate.engine, "before_cursor_execute", fail)
    assert await gate.ask(key) is StatusCode.UNAVAILABLE
    sa.event.remove(gate.engine, "before_cursor_execute", fail)
    assert await gate.ask(key) == "alice"


def _broken() -> Exception:
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


async def test_role_is_needed(gate):
    """A method that is not listed is for nobody, whatever the roles."""
    key = gate.key("root", *Role)
    assert await gate.ask(key, "Unlisted") is StatusCode.PERMISSION_DENIED


def test_only_health_is_public():
    """Health answers everybody, and nothing else does."""
    assert {method.name.partition("/")[0] for method in PUBLIC} == {"grpc.health.v1.Health"}
    assert method_of("grpc.health.v1.Health/Check").is_public
    assert not method_of("grpc.health.v1.HealthX/Check").is_public
    assert not any(method.is_public for method in METHODS.values())


# --- bad credentials ---


def unknown_key() -> str:
    """A key of the right form that nobody has."""
    return issue_key(subject="nobody", roles=[Role.CALLER])[0]


async def test_guessing_is_stopped(gate):
    """After 60 bad credentials from one address nothing is looked up for it any more."""
    codes = [await gate.ask(unknown_key()) for _ in range(MAX_FAILURES_PER_MINUTE)]
    assert set(codes) == {StatusCode.UNAUTHENTICATED}
    assert gate.lookups == MAX_FAILURES_PER_MINUTE
    assert await gate.ask(unknown_key()) is StatusCode.RESOURCE_EXHAUSTED
    assert await gate.ask("no key at all") is StatusCode.RESOURCE_EXHAUSTED
    assert gate.lookups == MAX_FAILURES_PER_MINUTE


async def test_guessing_goes_on_slowly(gate):
    """Once a second there is room for one more; after a minute for as many as before."""
    for _ in range(MAX_FAILURES_PER_MINUTE):
        await gate.ask("bad")
    gate.now += 1.0
    assert await gate.ask("bad") is StatusCode.UNAUTHENTICATED
    assert await gate.ask("bad") is StatusCode.RESOURCE_EXHAUSTED
    gate.now += 60.0
    codes = [await gate.ask("bad") for _ in range(MAX_FAILURES_PER_MINUTE)]
    assert set(codes) == {StatusCode.UNAUTHENTICATED}


async def test_good_credentials_pass_beside_bad_ones(gate):
    """A key that was good before passes, whatever else its address tries, also when it is stale."""
    key, late = gate.key(), gate.key("bob")
    assert await gate.ask(key) == "alice"
    for _ in range(MAX_FAILURES_PER_MINUTE + 1):
        await gate.ask("bad")
    assert await gate.ask(key) == "alice"
    gate.now += CACHE_TTL_S + 0.1
    for _ in range(10):
        await gate.ask("bad")
    assert await gate.ask(key) == "alice"
    # One that was never seen has to wait for its turn.
    assert await gate.ask(late) is StatusCode.RESOURCE_EXHAUSTED
    gate.now += 1.0
    assert await gate.ask(late) == "bob"


async def test_good_credentials_cost_nothing(gate):
    """However many good keys come from one address, none of them is a failure."""
    keys = [gate.key(f"user-{n}") for n in range(MAX_FAILURES_PER_MINUTE + 5)]
    for n, key in enumerate(keys):
        assert await gate.ask(key) == f"user-{n}"
