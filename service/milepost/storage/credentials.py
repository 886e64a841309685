"""API keys at rest: who they speak for, and a digest; never the key."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from milepost.domain.operation import Principal, Role
from milepost.domain.ports import StoredKey
from milepost.storage.tables import api_keys, clock, service_keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from milepost.storage.engine import Session

SERVICE_KEY_BYTES: Final = 32

_k = api_keys.c
_LIVE = sa.and_(
    _k.revoke_time.is_(None), sa.or_(_k.expire_time.is_(None), _k.expire_time > clock())
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
            roles=frozenset(Role(role) for role in roles.split()),
            credential_id=key_id,
            functions=tuple(functions.split()),
        ),
        digest=bytes(digest),
    )


def service_key(engine: Engine, name: str) -> bytes:
    """Return the random key that all replicas on this database share, making it at first use."""
    insert = sqlite.insert if engine.dialect.name == "sqlite" else postgresql.insert
    fresh = insert(service_keys).values(name=name, value=secrets.token_bytes(SERVICE_KEY_BYTES))
    with engine.begin() as connection:
        connection.execute(fresh.on_conflict_do_nothing())
        query = sa.select(service_keys.c.value).where(service_keys.c.name == name)
        return bytes(connection.execute(query).scalar_one())


class KeyRing:
    """The API keys of one database, for whoever administers it."""

    def __init__(self, engine: Engine) -> None:
        """Work on the database of `engine`."""
        self._engine = engine

    def add(self, key: StoredKey) -> None:
        """Store a key; it is valid from now on."""
        principal = key.principal
        with self._engine.begin() as connection:
            connection.execute(
                sa.insert(api_keys).values(
                    key_id=principal.credential_id,
                    digest=key.digest,
                    subject=principal.subject,
                    roles=" ".join(sorted(principal.roles)),
                    functions=" ".join(principal.functions),
                    create_time=clock(),
                )
            )

    def rows(self) -> list[dict[str, Any]]:
        """Return every key, newest first, without its digest."""
        columns = [column for column in _k if column.name != "digest"]
        with self._engine.connect() as connection:
            query = sa.select(*columns).order_by(_k.create_time.desc(), _k.key_id)
            return [dict(row) for row in connection.execute(query).mappings()]

    def revoke(self, key_id: str) -> bool:
        """Make a key worthless; tell whether there is such a key. Doing it twice is fine."""
        with self._engine.begin() as connection:
            revoked = connection.execute(
                sa.update(api_keys)
                .where(_k.key_id == key_id)
                .values(revoke_time=sa.func.coalesce(_k.revoke_time, clock()))
            )
            return revoked.rowcount == 1
