"""Signing secrets in a SQL database, which has only their encrypted form."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

import sqlalchemy as sa

from milepost.domain.delivery import SealedSecret
from milepost.storage.batchers import atomic
from milepost.storage.dialects import Span, clock, later
from milepost.storage.tables import signing_secrets

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable, Sequence

    from sqlalchemy.engine import Engine

    from milepost.domain.ports import SecretVault
    from milepost.storage.batchers import Batchers
    from milepost.storage.session import AnyRow, Session

Found = TypeVar("Found")

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
"""The space of the advisory locks of secrets."""
_SIGNING: Final = sa.or_(_s.expire_time.is_(None), _s.expire_time > clock())


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """A new secret that replaces the current one."""

    owner: str
    key_id: str
    sealed: bytes
    request_id: str | None
    overlap: timedelta


class SqlSecretStore:
    """Implementation of the port `SecretStore`."""

    def __init__(self, batchers: Batchers) -> None:
        """Use the database of `batchers`."""
        self._batchers = batchers

    async def secrets(self, owner: str) -> Sequence[SealedSecret]:
        """See `SecretStore.secrets`."""
        return await self._batchers.read(lambda session: find(session, owner))

    async def first_secret(self, owner: str, key_id: str, sealed: bytes) -> None:
        """See `SecretStore.first_secret`."""
        first = Rotation(
            owner=owner, key_id=key_id, sealed=sealed, request_id=None, overlap=timedelta(0)
        )
        await self._write(lambda session: add_first(session, first))

    async def rotate_secret(
        self, owner: str, key_id: str, sealed: bytes, request_id: str | None, overlap: timedelta
    ) -> bool:
        """See `SecretStore.rotate_secret`."""
        rotation = Rotation(
            owner=owner, key_id=key_id, sealed=sealed, request_id=request_id, overlap=overlap
        )
        return await self._write(lambda session: rotate(session, rotation))

    def _write(self, run: Callable[[Session], Found]) -> asyncio.Future[Found]:
        return self._batchers.deliveries.submit(atomic(run), None, object())


def find(session: Session, owner: str) -> tuple[SealedSecret, ...]:
    """Return the secrets of an owner that sign now, the current one first."""
    return find_all(session, [owner])[owner]


_OF_OWNERS: Final = (
    sa.select(*_COLUMNS)
    .where(_s.owner.in_(sa.bindparam("owners", expanding=True)), _SIGNING)
    .order_by(_s.expire_time.is_not(None), _s.create_time.desc())
)


def find_all(session: Session, owners: Iterable[str]) -> dict[str, tuple[SealedSecret, ...]]:
    """Return the secrets that sign now, for each of the owners."""
    found: dict[str, tuple[SealedSecret, ...]] = dict.fromkeys(owners, ())
    for row in session.fetch(_OF_OWNERS, {"owners": list(found)}) if found else ():
        found[row.owner] += (_secret(row),)
    return found


def _secret(row: AnyRow) -> SealedSecret:
    return SealedSecret(
        owner=row.owner,
        key_id=row.key_id,
        sealed=bytes(row.sealed),
        create_time=row.create_time,
        expire_time=row.expire_time,
        request_id=row.request_id,
    )


def add_first(session: Session, first: Rotation) -> None:
    """Store a current secret, unless one exists."""
    _lock_secrets(session, first.owner)
    if not session.fetch(sa.select(_s.id).where(_s.owner == first.owner, _s.expire_time.is_(None))):
        _add_current(session, first)


def rotate(session: Session, rotation: Rotation) -> bool:
    """Replace the current secret; return False for a retry of a rotation."""
    _lock_secrets(session, rotation.owner)
    of_owner = _s.owner == rotation.owner
    if rotation.request_id is not None and session.fetch(
        sa.select(_s.id).where(of_owner, _SIGNING, _s.request_id == rotation.request_id)
    ):
        return False
    session.connection.execute(
        sa.delete(signing_secrets).where(of_owner, _s.expire_time.is_not(None))
    )
    session.connection.execute(
        sa.update(signing_secrets)
        .where(of_owner)
        .values(expire_time=later(clock(), sa.literal(rotation.overlap, Span())))
    )
    _add_current(session, rotation)
    return True


def _lock_secrets(session: Session, owner: str) -> None:
    """Lock the secrets of `owner` until the end of the transaction.

    Row locks do not suffice: the owner may have no row yet, and a transaction that waits for a row
    that is being replaced would not see its successor.
    """
    session.database.lock(session, _LOCK, owner)


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
        for row in connection.execute(sa.select(_s.id, *_COLUMNS).with_for_update()):
            secret = _secret(row)
            key_id, sealed = vault.seal(secret.owner, vault.unseal(secret))
            if key_id == secret.key_id:
                continue
            update = sa.update(signing_secrets).where(_s.id == row.id, _s.sealed == secret.sealed)
            changed += connection.execute(update.values(key_id=key_id, sealed=sealed)).rowcount
    return changed
