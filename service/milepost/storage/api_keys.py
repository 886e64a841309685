"""API keys in a SQL database: their principals and digests, never the keys."""

from __future__ import annotations

import functools
import itertools
import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from milepost.domain.api_key import ApiKey, CreateKeyResult, StoredKey
from milepost.domain.errors import ApiKeyNotFound, InvalidRequest, RequestIdReused, Violation
from milepost.domain.operation import Principal, Role
from milepost.storage.batchers import alone
from milepost.storage.dialects import Span, clock, json_pairs, later, pairs_json
from milepost.storage.engine import database_of
from milepost.storage.prepared import Prepared
from milepost.storage.tables import api_keys, service_keys
from milepost.storage.transaction_spans import named

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import Engine

    from milepost.domain.api_key import CreateKeyRequest, KeySelection
    from milepost.domain.selection import Position
    from milepost.storage.batchers import Batchers
    from milepost.storage.database import Database
    from milepost.storage.session import AnyRow, Session

MAX_USES: Final = 1_000
"""Keys whose use one statement records."""
SERVICE_KEY_BYTES: Final = 32
USE_INTERVAL: Final = timedelta(minutes=1)
"""Minimum time between writes of the last use of one key, over all replicas."""

Found = TypeVar("Found")

_k = api_keys.c
_VALID = sa.and_(
    _k.revoke_time.is_(None), sa.or_(_k.expire_time.is_(None), _k.expire_time > clock())
)
_COLUMNS: Final = (
    _k.key_id,
    _k.subject,
    _k.roles,
    _k.functions,
    _k.create_time,
    _k.expire_time,
    _k.last_used_time,
    _k.revoke_time,
)


class SqlKeyStore:
    """Implementation of the ports `CredentialStore` and `KeyStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Compile the frequent statements once."""
        self._batchers = batchers
        self._find = find_statement(batchers.database)
        self._good = good_statement(batchers.database)
        self._record = use_statement(batchers.database)

    async def find_key(self, key_id: str) -> StoredKey | None:
        """See `CredentialStore.find_key`."""
        return await self._batchers.reads.submit(self._find_keys, key_id, object())

    @named("SELECT", "api_keys")
    def _find_keys(self, session: Session, key_ids: Sequence[str]) -> Sequence[StoredKey | None]:
        rows = session.read(self._find, [(key_id,) for key_id in dict.fromkeys(key_ids)])
        found = {row[0]: _stored_key(*row) for row in rows}
        return [found.get(key_id) for key_id in key_ids]

    async def good_keys(self, key_ids: Collection[str]) -> Collection[str]:
        """See `CredentialStore.good_keys`."""
        inputs = [(_array(key_ids),)]
        rows = await self._batchers.read(lambda session: session.read(self._good, inputs))
        return {key_id for (key_id,) in rows}

    async def list_keys(
        self, selection: KeySelection, after: Position | None, limit: int
    ) -> list[ApiKey]:
        """See `KeyStore.list_keys`."""
        return await self._batchers.read(
            lambda session: list_keys(session, selection, after, limit)
        )

    async def add_key(
        self, key: StoredKey, create_request: CreateKeyRequest, *, creator: str
    ) -> CreateKeyResult:
        """See `KeyStore.add_key`."""
        return await self._write(lambda session: add_key(session, key, create_request, creator))

    async def revoke_key(self, key_id: str) -> ApiKey:
        """See `KeyStore.revoke_key`."""
        return await self._write(lambda session: revoke_key(session, key_id))

    async def record_key_use(self, key_ids: Iterable[str]) -> None:
        """See `KeyStore.record_key_use`."""
        remaining = iter(sorted(key_ids))
        # In parts, so that no transition waits for all of them.
        while part := list(itertools.islice(remaining, MAX_USES)):
            await self._write(functools.partial(_run, self._record, _array(part)))

    def _write(self, run: Callable[[Session], Found]) -> asyncio.Future[Found]:
        return self._batchers.writes.submit(alone(run), None, object())


def find_statement(database: Database) -> Prepared:
    """Return the query for keys by their public ids, unless they are revoked or expired."""
    columns = (_k.key_id, _k.digest, _k.subject, _k.roles, _k.functions)

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        return sa.select(*columns).where(_k.key_id == m["key_id"], _VALID)

    return Prepared(database, {"key_id": sa.Text()}, build)


def good_statement(database: Database) -> Prepared:
    """Return the query for those of many keys that are neither revoked nor expired."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        requested = _requested(m)
        # A scalar subquery, looked up for each key: a join might read the whole table.
        good = (
            sa.select(_k.key_id)
            .where(_k.key_id == requested.c.a, _VALID)
            .correlate(requested)
            .scalar_subquery()
        )
        return sa.select(requested.c.a).where(good.is_not(None))

    return Prepared(database, {"key_ids": sa.Text()}, build)


def use_statement(database: Database) -> Prepared:
    """Return the update of the last use of many keys."""

    def build(m: Mapping[str, ColumnElement[Any]]) -> sa.Executable:
        requested = _requested(m)
        stale = sa.or_(
            _k.last_used_time.is_(None),
            _k.last_used_time <= later(clock(), sa.literal(-USE_INTERVAL, Span())),
        )
        return (
            sa.update(api_keys)
            .where(_k.key_id == requested.c.a, stale)
            .values(last_used_time=clock())
            .returning(_k.key_id)
        )

    return Prepared(database, {"key_ids": sa.Text()}, build)


def _requested(m: Mapping[str, ColumnElement[Any]]) -> sa.TableValuedAlias:
    """Return the requested keys; the second text of each pair is not used."""
    return json_pairs(m["key_ids"]).table_valued(sa.column("a", sa.Text)).alias("requested")


def _array(key_ids: Iterable[str]) -> str:
    return pairs_json((key_id, "") for key_id in key_ids)


def _run(statement: Prepared, value: str, session: Session) -> None:
    session.run(statement, [(value,)])


def _stored_key(key_id: str, digest: bytes, subject: str, roles: str, functions: str) -> StoredKey:
    return StoredKey(
        principal=Principal(
            subject=subject,
            roles=_roles(roles),
            credential_id=key_id,
            functions=tuple(functions.split()),
        ),
        digest=bytes(digest),
    )


def add_key(
    session: Session, key: StoredKey, create_request: CreateKeyRequest, creator: str
) -> CreateKeyResult:
    """See `KeyStore.add_key`."""
    rows = session.fetch(
        _insert(
            session.database,
            key,
            expire_time=sa.literal(create_request.expire_time, _k.expire_time.type),
            creator=creator,
            request_id=create_request.request_id,
            fingerprint=create_request.fingerprint,
        ).returning(*_COLUMNS)
    )
    return CreateKeyResult(_api_key(rows[0])) if rows else _replay(session, create_request, creator)


def _replay(session: Session, create_request: CreateKeyRequest, creator: str) -> CreateKeyResult:
    """Return the key that the request_id created before, or raise the reason of the conflict."""
    found = session.fetch(
        sa.select(*_COLUMNS, _k.fingerprint).where(
            _k.creator == creator, _k.request_id == create_request.request_id
        )
    )
    if not found:
        raise InvalidRequest(Violation("expire_time", "must lie in the future"))
    if found[0].fingerprint != create_request.fingerprint:
        raise RequestIdReused(create_request.request_id or "")
    return CreateKeyResult(_api_key(found[0]), replayed=True)


def _insert(
    database: Database, key: StoredKey, *, expire_time: sa.ColumnElement[Any], **columns: str | None
) -> postgresql.Insert | sqlite.Insert:
    """Return the insert of a key, which inserts no row if the key has expired by `clock`."""
    values: dict[str, sa.ColumnElement[Any]] = {
        "key_id": sa.literal(key.principal.credential_id),
        "digest": sa.literal(key.digest, sa.LargeBinary),
        "subject": sa.literal(key.principal.subject),
        "roles": sa.literal(" ".join(sorted(key.principal.roles))),
        "functions": sa.literal(" ".join(key.principal.functions)),
        "create_time": clock(),
        "expire_time": expire_time,
        **{name: sa.literal(value, sa.Text) for name, value in columns.items()},
    }
    source = sa.select(*values.values()).where(sa.or_(expire_time.is_(None), expire_time > clock()))
    return (
        database.insert(api_keys)
        .from_select(list(values), source)
        .on_conflict_do_nothing(index_elements=["creator", "request_id"])
    )


def list_keys(
    session: Session, selection: KeySelection, after: Position | None, limit: int
) -> list[ApiKey]:
    """See `KeyStore.list_keys`."""
    query = sa.select(*_COLUMNS).order_by(_k.create_time.desc(), _k.key_id.desc()).limit(limit)
    if selection.subject is not None:
        query = query.where(_k.subject == selection.subject)
    if not selection.inactive:
        query = query.where(_VALID)
    if after is not None:
        query = query.where(
            sa.tuple_(_k.create_time, _k.key_id)
            < sa.tuple_(sa.literal(after.create_time, _k.create_time.type), sa.literal(after.id))
        )
    return [_api_key(row) for row in session.fetch(query)]


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """See `KeyStore.revoke_key`."""
    rows = session.fetch(_revoke(key_id).returning(*_COLUMNS))
    if not rows:
        raise ApiKeyNotFound(key_id)
    return _api_key(rows[0])


def _revoke(key_id: str) -> sa.Update:
    return (
        sa.update(api_keys)
        .where(_k.key_id == key_id)
        .values(revoke_time=sa.func.coalesce(_k.revoke_time, clock()))
    )


def _api_key(row: AnyRow) -> ApiKey:
    return ApiKey(
        key_id=row.key_id,
        subject=row.subject,
        roles=_roles(row.roles),
        functions=tuple(row.functions.split()),
        create_time=row.create_time,
        expire_time=row.expire_time,
        last_used_time=row.last_used_time,
        revoke_time=row.revoke_time,
    )


@functools.lru_cache(maxsize=64)
def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(role) for role in text.split())


def service_key(engine: Engine, name: str) -> bytes:
    """Return the random key that all replicas on this database share; create it at first use."""
    value = secrets.token_bytes(SERVICE_KEY_BYTES)
    insert = database_of(engine).insert(service_keys).values(name=name, value=value)
    with engine.begin() as connection:
        connection.execute(insert.on_conflict_do_nothing())
        query = sa.select(service_keys.c.value).where(service_keys.c.name == name)
        return bytes(connection.execute(query).scalar_one())


class KeyRing:
    """The API keys of one database, for administration outside of the service."""

    def __init__(self, engine: Engine) -> None:
        """Use the database of `engine`."""
        self._engine = engine

    def add(self, key: StoredKey, *, lifetime: timedelta | None = None) -> datetime | None:
        """Store a key, valid from now on for `lifetime`; return its expiry time."""
        expire_time = (
            sa.null().cast(_k.expire_time.type)
            if lifetime is None
            else later(clock(), sa.literal(lifetime, Span()))
        )
        with self._engine.begin() as connection:
            insert = _insert(database_of(self._engine), key, expire_time=expire_time)
            expires: datetime | None = connection.execute(
                insert.returning(_k.expire_time)
            ).scalar_one()
            return expires

    def rows(self) -> list[dict[str, Any]]:
        """Return every key, newest first, without its digest."""
        with self._engine.connect() as connection:
            query = sa.select(*_COLUMNS).order_by(_k.create_time.desc(), _k.key_id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def revoke(self, key_id: str) -> bool:
        """Revoke a key; return False if the key does not exist. A second call changes nothing."""
        with self._engine.begin() as connection:
            return connection.execute(_revoke(key_id)).rowcount == 1
