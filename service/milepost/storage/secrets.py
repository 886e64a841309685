"""Signing secrets at rest. They come here encrypted and leave encrypted."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.delivery import SealedSecret
from milepost.storage.dialects import Span, clock, later
from milepost.storage.tables import signing_secrets

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import timedelta

    from sqlalchemy.engine import Engine

    from milepost.domain.ports import SecretVault
    from milepost.storage.engine import Session

_s = signing_secrets.c
_COLUMNS: Final = (
    _s.owner,
    _s.key_id,
    _s.sealed,
    _s.create_time,
    _s.expire_time,
    _s.request_id,
)
_LOCK: Final = 0x5EC2E75
"""Tells the advisory locks of secrets from all others."""
_SIGNING: Final = sa.or_(_s.expire_time.is_(None), _s.expire_time > clock())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A new secret that is to replace the current one."""

    owner: str
    key_id: str
    sealed: bytes
    request_id: str | None
    overlap: timedelta


def find(session: Session, owner: str) -> tuple[SealedSecret, ...]:
    """Return what signs now, the current one first."""
    return find_all(session, [owner])[owner]


_OF_OWNERS: Final = (
    sa.select(*_COLUMNS)
    .where(_s.owner.in_(sa.bindparam("owners", expanding=True)), _SIGNING)
    .order_by(_s.expire_time.is_not(None), _s.create_time.desc())
)


def find_all(session: Session, owners: Iterable[str]) -> dict[str, tuple[SealedSecret, ...]]:
    """Return what signs now, for each of the owners."""
    found: dict[str, tuple[SealedSecret, ...]] = dict.fromkeys(owners, ())
    for row in session.fetch(_OF_OWNERS, {"owners": list(found)}) if found else ():
        found[row[0]] += (_secret(row),)
    return found


def _secret(row: tuple[Any, ...]) -> SealedSecret:
    return SealedSecret(
        owner=row[0],
        key_id=row[1],
        sealed=bytes(row[2]),
        create_time=row[3],
        expire_time=row[4],
        request_id=row[5],
    )


def add_first(session: Session, first: Rotation) -> None:
    """Store a current secret, unless there is one."""
    _take_turn(session, first.owner)
    if not session.fetch(sa.select(_s.id).where(_s.owner == first.owner, _s.expire_time.is_(None))):
        _add_current(session, first)


def rotate(session: Session, rotation: Rotation) -> bool:
    """Replace the current secret; false if this very rotation was made before."""
    _take_turn(session, rotation.owner)
    mine = _s.owner == rotation.owner
    if rotation.request_id is not None and session.fetch(
        sa.select(_s.id).where(mine, _SIGNING, _s.request_id == rotation.request_id)
    ):
        return False
    session.connection.execute(sa.delete(signing_secrets).where(mine, _s.expire_time.is_not(None)))
    session.connection.execute(
        sa.update(signing_secrets)
        .where(mine)
        .values(expire_time=later(clock(), sa.literal(rotation.overlap, Span())))
    )
    _add_current(session, rotation)
    return True


def _take_turn(session: Session, owner: str) -> None:
    """Wait until no other transaction changes the secrets of `owner`, and let none until the end.

    Locks of the rows would not do: there may be none yet, and whoever waits for one that is being
    replaced holds it while it looks for its successor. On SQLite every transaction is alone.
    """
    if session.dialect.name == "postgresql":
        session.fetch(sa.select(sa.func.pg_advisory_xact_lock(_LOCK, sa.func.hashtext(owner))))


def _add_current(session: Session, rotation: Rotation) -> None:
    session.connection.execute(
        sa.insert(signing_secrets).values(
            id=uuid.uuid4().hex,
            owner=rotation.owner,
            key_id=rotation.key_id,
            sealed=rotation.sealed,
            create_time=clock(),
            request_id=rotation.request_id,
        )
    )


def reencrypt(engine: Engine, vault: SecretVault) -> int:
    """Encrypt every secret under the current master key; return how many were under another."""
    changed = 0
    with engine.begin() as connection:
        for id_, *row in connection.execute(sa.select(_s.id, *_COLUMNS).with_for_update()):
            secret = _secret(tuple(row))
            key_id, sealed = vault.seal(secret.owner, vault.unseal(secret))
            if key_id == secret.key_id:
                continue
            mine = sa.update(signing_secrets).where(_s.id == id_, _s.sealed == secret.sealed)
            changed += connection.execute(mine.values(key_id=key_id, sealed=sealed)).rowcount
    return changed
