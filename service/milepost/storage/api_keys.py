"""API keys in a SQL database: their principals and digests, never the keys."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import sqlalchemy as sa

from milepost.domain.api_key import ApiKey, CreateKeyResult, StoredKey
from milepost.domain.errors import ApiKeyNotFound, InvalidRequest, RequestIdReused, Violation
from milepost.domain.operation import Principal, Role
from milepost.storage.batchers import alone
from milepost.storage.dialects import Span, clock, later
from milepost.storage.engine import database_of
from milepost.storage.tables import api_keys, service_keys

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import Engine

    from milepost.domain.api_key import CreateKeyRequest, KeySelection
    from milepost.domain.selection import Position
    from milepost.storage.batchers import Batchers
    from milepost.storage.database import Database
    from milepost.storage.session import AnyRow, Session

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
        """Use the database of `batchers`."""
        self._batchers = batchers

    async def find_key(self, key_id: str) -> StoredKey | None:
        """See `CredentialStore.find_key`."""
        return await self._batchers.read(lambda session: find_key(session, key_id))

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
        ids = sorted(key_ids)
        await self._write(lambda session: record_key_use(session, ids))

    def _write(self, run: Callable[[Session], Found]) -> asyncio.Future[Found]:
        return self._batchers.writes.submit(alone(run), None, object())


def find_key(session: Session, key_id: str) -> StoredKey | None:
    """Return the key with this public id if it is neither revoked nor expired."""
    query = sa.select(_k.key_id, _k.digest, _k.subject, _k.roles, _k.functions)
    rows = session.fetch(query.where(_k.key_id == key_id, _VALID))
    return _stored_key(rows[0]) if rows else None


def _stored_key(row: AnyRow) -> StoredKey:
    return StoredKey(
        principal=Principal(
            subject=row.subject,
            roles=_roles(row.roles),
            credential_id=row.key_id,
            functions=tuple(row.functions.split()),
        ),
        digest=bytes(row.digest),
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


def record_key_use(session: Session, key_ids: Iterable[str]) -> None:
    """See `KeyStore.record_key_use`."""
    stale = sa.or_(
        _k.last_used_time.is_(None),
        _k.last_used_time <= later(clock(), sa.literal(-USE_INTERVAL, Span())),
    )
    statement = sa.update(api_keys).where(_k.key_id.in_(list(key_ids)), stale)
    session.fetch(statement.values(last_used_time=clock()).returning(_k.key_id))


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
