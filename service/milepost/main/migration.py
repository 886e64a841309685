"""``milepost migrate``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from milepost.main.database import DatabaseError, opened_database, require
from milepost.main.embedded import EmbeddedStore
from milepost.storage import schema
from milepost.storage.serving_periods import MAX_GAP, is_served

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


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
