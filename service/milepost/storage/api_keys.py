"""API keys at rest: who they speak for, and a digest; never the key."""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from milepost.domain.api_key import ApiKey, CreateKeyResult, StoredKey
from milepost.domain.errors import ApiKeyNotFound, InvalidRequest, RequestIdReused, Violation
from milepost.domain.operation import Principal, Role
from milepost.storage.dialects import Span, clock, insert_into, later
from milepost.storage.tables import api_keys, service_keys

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy.engine import Dialect, Engine

    from milepost.domain.api_key import CreateKeyRequest, KeySelection
    from milepost.domain.selection import Position
    from milepost.storage.engine import Session

SERVICE_KEY_BYTES: Final = 32
USE_INTERVAL: Final = timedelta(minutes=1)
"""How often the last use of one key is written at most, by all replicas together."""

_k = api_keys.c
_LIVE = sa.and_(
    _k.revoke_time.is_(None), sa.or_(_k.expire_time.is_(None), _k.expire_time > clock())
)
_SHOWN: Final = (
    _k.key_id,
    _k.subject,
    _k.roles,
    _k.functions,
    _k.create_time,
    _k.expire_time,
    _k.last_used_time,
    _k.revoke_time,
)


def find_key(session: Session, key_id: str) -> StoredKey | None:
    """Return the key with this public id if it is neither revoked nor expired."""
    query = sa.select(_k.key_id, _k.digest, _k.subject, _k.roles, _k.functions)
    rows = session.fetch(query.where(_k.key_id == key_id, _LIVE))
    return _stored_key(rows[0]) if rows else None


def _stored_key(row: Sequence[Any]) -> StoredKey:
    key_id, digest, subject, roles, functions = row
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
            session.dialect,
            key,
            expire_time=sa.literal(create_request.expire_time, _k.expire_time.type),
            creator=creator,
            request_id=create_request.request_id,
            fingerprint=create_request.fingerprint,
        ).returning(*_SHOWN)
    )
    return (
        CreateKeyResult(_api_key(rows[0])) if rows else _earlier(session, create_request, creator)
    )


def _earlier(session: Session, create_request: CreateKeyRequest, creator: str) -> CreateKeyResult:
    """Return the key that the request_id created before, or raise why there is none."""
    found = session.fetch(
        sa.select(*_SHOWN, _k.fingerprint).where(
            _k.creator == creator, _k.request_id == create_request.request_id
        )
    )
    if not found:
        raise InvalidRequest(Violation("expire_time", "must lie in the future"))
    if found[0][-1] != create_request.fingerprint:
        raise RequestIdReused(create_request.request_id or "")
    return CreateKeyResult(_api_key(found[0][:-1]), replayed=True)


def _insert(
    dialect: Dialect, key: StoredKey, *, expire_time: sa.ColumnElement[Any], **more: str | None
) -> sqlite.Insert | postgresql.Insert:
    """Return the insert of a key; none is made that the database's clock calls expired."""
    values: dict[str, sa.ColumnElement[Any]] = {
        "key_id": sa.literal(key.principal.credential_id),
        "digest": sa.literal(key.digest, sa.LargeBinary),
        "subject": sa.literal(key.principal.subject),
        "roles": sa.literal(" ".join(sorted(key.principal.roles))),
        "functions": sa.literal(" ".join(key.principal.functions)),
        "create_time": clock(),
        "expire_time": expire_time,
        **{name: sa.literal(value, sa.Text) for name, value in more.items()},
    }
    source = sa.select(*values.values()).where(sa.or_(expire_time.is_(None), expire_time > clock()))
    return (
        insert_into(api_keys, dialect)
        .from_select(list(values), source)
        .on_conflict_do_nothing(index_elements=["creator", "request_id"])
    )


def list_keys(
    session: Session, selection: KeySelection, after: Position | None, limit: int
) -> list[ApiKey]:
    """See `KeyStore.list_keys`."""
    query = sa.select(*_SHOWN).order_by(_k.create_time.desc(), _k.key_id.desc()).limit(limit)
    if selection.subject is not None:
        query = query.where(_k.subject == selection.subject)
    if not selection.inactive:
        query = query.where(_LIVE)
    if after is not None:
        query = query.where(
            sa.tuple_(_k.create_time, _k.key_id)
            < sa.tuple_(sa.literal(after.create_time, _k.create_time.type), sa.literal(after.id))
        )
    return [_api_key(row) for row in session.fetch(query)]


def revoke_key(session: Session, key_id: str) -> ApiKey:
    """See `KeyStore.revoke_key`."""
    rows = session.fetch(_revoke(key_id).returning(*_SHOWN))
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


def _api_key(row: Sequence[Any]) -> ApiKey:
    key_id, subject, roles, functions, *times = row
    create_time, expire_time, last_used_time, revoke_time = times
    return ApiKey(
        key_id=key_id,
        subject=subject,
        roles=_roles(roles),
        functions=tuple(functions.split()),
        create_time=create_time,
        expire_time=expire_time,
        last_used_time=last_used_time,
        revoke_time=revoke_time,
    )


def _roles(text: str) -> frozenset[Role]:
    return frozenset(Role(role) for role in text.split())


def service_key(engine: Engine, name: str) -> bytes:
    """Return the random key that all replicas on this database share, making it at first use."""
    value = secrets.token_bytes(SERVICE_KEY_BYTES)
    fresh = insert_into(service_keys, engine.dialect).values(name=name, value=value)
    with engine.begin() as connection:
        connection.execute(fresh.on_conflict_do_nothing())
        query = sa.select(service_keys.c.value).where(service_keys.c.name == name)
        return bytes(connection.execute(query).scalar_one())


class KeyRing:
    """The API keys of one database, for whoever administers it beside the service."""

    def __init__(self, engine: Engine) -> None:
        """Work on the database of `engine`."""
        self._engine = engine

    def add(self, key: StoredKey, *, lifetime: timedelta | None = None) -> datetime | None:
        """Store a key; it is valid from now on, for `lifetime`. Return when it expires."""
        dialect = self._engine.dialect
        expire_time = (
            sa.null().cast(_k.expire_time.type)
            if lifetime is None
            else later(clock(), sa.literal(lifetime, Span()))
        )
        with self._engine.begin() as connection:
            insert = _insert(dialect, key, expire_time=expire_time).returning(_k.expire_time)
            expires: datetime | None = connection.execute(insert).scalar_one()
            return expires

    def rows(self) -> list[dict[str, Any]]:
        """Return every key, newest first, without its digest."""
        with self._engine.connect() as connection:
            query = sa.select(*_SHOWN).order_by(_k.create_time.desc(), _k.key_id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def revoke(self, key_id: str) -> bool:
        """Make a key worthless; tell whether there is such a key. Doing it twice is fine."""
        with self._engine.begin() as connection:
            return connection.execute(_revoke(key_id)).rowcount == 1
