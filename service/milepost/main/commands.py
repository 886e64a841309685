"""The commands that work on the database, without a running service."""

from __future__ import annotations

import asyncio
import contextlib
import time
from datetime import timedelta
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic.util import CommandError

from milepost.config import SettingsError
from milepost.domain.api_key import issue_key
from milepost.domain.errors import StoreUnavailable
from milepost.main.embedded import EmbeddedStore, make_folder, sqlite_path
from milepost.main.webhook_delivery import master_keys
from milepost.storage import schema
from milepost.storage.api_keys import KeyRing
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.failures import NO_ANSWER, failure, is_passing
from milepost.storage.requirements import unmet_requirement
from milepost.storage.serving_periods import MAX_GAP, is_served
from milepost.storage.signing_secrets import reencrypt
from milepost.storage.sweeps import SqlSweepStore
from milepost.storage.translate import cause
from milepost.storage.work import SqlWorkStore
from milepost.tracking.claimer import PendingWork
from milepost.tracking.subscriptions import Subscriptions
from milepost.tracking.sweeper import Sweeper
from milepost.webhooks.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime
    from typing import Any

    from sqlalchemy.engine import Engine

    from milepost.config import Settings
    from milepost.domain.operation import Role
    from milepost.tracking.sweeper import Swept


class DatabaseError(Exception):
    """The database cannot be used. The text has the reason, and never the password."""

    def __init__(self, message: str, *, away: bool = False) -> None:
        """Store whether the database is `away`, so that a retry may succeed."""
        self.away = away
        super().__init__(message)


def migrate(url: str, revision: str = schema.HEAD, *, allow_data_loss: bool = False) -> str | None:
    """Upgrade or downgrade the schema to `revision`; return the revision that it has now."""
    if revision not in {schema.HEAD, schema.BASE} and not schema.is_known(revision):
        raise DatabaseError(f"there is no revision {revision}; the newest is {schema.latest()}")
    with opened_database(url, create=revision != schema.BASE) as engine:
        require(engine, allow_data_loss=allow_data_loss)
        if revision == schema.BASE or (schema.current(engine) or "") > revision:
            _downgrade(url, engine, revision)
        else:
            schema.upgrade(url, revision)
        return schema.current(engine)


def _downgrade(url: str, engine: Engine, revision: str) -> None:
    """Downgrade the schema. A running service would need what that removes."""
    with EmbeddedStore(url) as store:
        if not (store.try_lock() if url.startswith("sqlite") else _is_unserved(engine)):
            raise DatabaseError(
                "a service runs on this database: stop all its processes before you go back"
            )
        schema.downgrade(url, revision)


def _is_unserved(engine: Engine) -> bool:
    """Return whether no replica serves, not counting one that has just ended."""
    if is_served(engine):
        time.sleep(MAX_GAP.total_seconds())
    return not is_served(engine)


def require(engine: Engine, *, allow_data_loss: bool) -> None:
    """Raise `DatabaseError` if the database does not meet a requirement of Milepost."""
    if unmet := unmet_requirement(engine, allow_data_loss=allow_data_loss):
        raise DatabaseError(f"database: {unmet}")


def clean_up(settings: Settings, *, dry_run: bool) -> Swept:
    """Make one pass over the due operations; with `dry_run` only count them."""
    kept = timedelta(seconds=settings.events_kept_seconds)
    with _usable(settings.database_url.get_secret_value()) as engine:
        return asyncio.run(_clean_up(engine, kept, dry_run=dry_run))


async def _clean_up(engine: Engine, events_kept: timedelta, *, dry_run: bool) -> Swept:
    batchers = Batchers(engine)
    try:
        sweeper = Sweeper(
            SqlSweepStore(batchers),
            subscriptions=Subscriptions(),
            work=PendingWork(SqlWorkStore(batchers)),
            event_retention=events_kept,
        )
        if dry_run:
            return await sweeper.preview()
        # Also for a service whose role may not change tables.
        await sweeper.keep_event_days()
        return await sweeper.clean_up()
    except StoreUnavailable as error:
        problem = batchers.health.failure or NO_ANSWER
        raise DatabaseError(f"database: {problem}", away=True) from error
    finally:
        await batchers.close()


def create_key(
    url: str,
    *,
    subject: str,
    roles: Iterable[Role],
    functions: Iterable[str],
    lifetime: timedelta | None = None,
) -> tuple[str, str, datetime | None]:
    """Store a new API key; return its public id, the key itself, and its expire time."""
    key, stored = issue_key(subject=subject, roles=roles, functions=functions)
    with _keys(url, create=True) as keys:
        expire_time = keys.add(stored, lifetime=lifetime)
    return stored.principal.credential_id, key, expire_time


def list_keys(url: str) -> list[dict[str, Any]]:
    """Return every API key, newest first, without secrets."""
    with _keys(url) as keys:
        return keys.rows()


def revoke_key(url: str, key_id: str) -> bool:
    """Revoke a key; return False if it does not exist."""
    with _keys(url) as keys:
        return keys.revoke(key_id)


def reencrypt_secrets(settings: Settings) -> int:
    """Encrypt every signing secret with the current master key; return the number of changes."""
    url = settings.database_url.get_secret_value()
    if settings.embedded:
        _require_file(url)  # before a key is created beside it
    keys = master_keys(settings)
    if keys is None:
        raise SettingsError(["MILEPOST_WEBHOOK_KEYS: there are no master keys"])
    with _usable(url) as engine:
        return reencrypt(engine, Vault(keys))


@contextlib.contextmanager
def _keys(url: str, *, create: bool = False) -> Iterator[KeyRing]:
    with _usable(url, create=create) as engine:
        yield KeyRing(engine)


@contextlib.contextmanager
def _usable(url: str, *, create: bool = False) -> Iterator[Engine]:
    """Open a database that has the schema of this release.

    With `create`, an embedded store is created or migrated first, as by the service.
    """
    with opened_database(url, create=create) as engine:
        problem = schema.problem(engine)
        if problem and create and url.startswith("sqlite"):
            schema.upgrade(url)
        elif problem:
            raise DatabaseError(f"database: {problem}")
        yield engine


@contextlib.contextmanager
def opened_database(url: str, *, create: bool = False) -> Iterator[Engine]:
    """Open the database; turn every failure inside of the context into a `DatabaseError`.

    Without `create`, the file of an embedded store must exist.
    """
    try:
        if url.startswith("sqlite"):
            (make_folder if create else _require_file)(url)
        yield open_engine(url)
    except CommandError as error:
        raise DatabaseError(str(error)) from error
    except StoreUnavailable as error:
        raise DatabaseError("database: another process is writing to it", away=True) from error
    except ValueError as error:
        raise DatabaseError("database: its URL cannot be understood") from error
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _failed(error) from error


def _require_file(url: str) -> None:
    """Fail if the file of the embedded store does not exist. SQLite would create an empty one."""
    path = sqlite_path(url)
    if not path.exists():
        raise DatabaseError(
            f"database: the file {path} does not exist: check MILEPOST_DATABASE_URL"
            " (milepost serve or milepost keys create creates it)"
        )


def _failed(error: Exception) -> DatabaseError:
    """Return the failure for an error of the driver or of the system."""
    known, text = failure(error), cause(error)
    message = text if known is None else f"{known} ({text})"
    return DatabaseError(f"database: {message}", away=known is not None and is_passing(known))
