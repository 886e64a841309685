"""Checks of what the service connects to, for ``milepost check-config``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from milepost.main.database import DatabaseError, opened_database, require
from milepost.main.embedded import sqlite_path
from milepost.storage import schema
from milepost.storage.connections import CONNECTIONS_PER_REPLICA, connections_for_clients
from milepost.storage.redis_failures import unusable

if TYPE_CHECKING:
    from pathlib import Path

    from sqlalchemy.engine import Engine

    from milepost.config import Settings

_REDIS_TIMEOUT_S: Final = 2.0


def check(settings: Settings, *, connect: bool) -> list[str]:
    """Return warnings about what the service connects to.

    Without `connect`, a database that does not answer is only a warning, and neither the embedded
    store, nor the schema, nor Redis is looked at.

    Raises:
        DatabaseError: something cannot be used. The text has every cause.
    """
    warnings: list[str] = []
    failures: list[DatabaseError] = []
    try:
        warnings += _check_database(settings, connect=connect)
    except DatabaseError as error:
        if connect or not error.away:
            failures.append(error)
        else:
            warnings.append(str(error))
    if connect and settings.limits_url is not None:
        url = settings.limits_url.get_secret_value()
        if cause := unusable(url, timeout_s=_REDIS_TIMEOUT_S):
            failures.append(DatabaseError(f"limits: {cause}", away=True))
    if failures:
        away = all(each.away for each in failures)
        raise DatabaseError("; ".join(map(str, failures)), away=away)
    return warnings


def _check_database(settings: Settings, *, connect: bool) -> list[str]:
    url = settings.database_url.get_secret_value()
    if settings.embedded:
        return _check_file(url, sqlite_path(url)) if connect else []
    with opened_database(url) as engine:
        require(engine, allow_data_loss=settings.allow_data_loss)
        if connect and (problem := schema.problem(engine)):
            raise DatabaseError(f"database: {problem}")
        return _few_connections(engine, settings.processes)


def _check_file(url: str, path: Path) -> list[str]:
    """Fail unless the embedded store can be written to, or created when the service starts."""
    if path.exists():
        with opened_database(url) as engine:
            require(engine, allow_data_loss=False)
            with engine.begin():  # takes the locks of a writer
                return []
    folder = next(each for each in path.absolute().parents if each.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise DatabaseError(f"database: {path} cannot be created: {folder} is not writable")
    return [f"database: the file {path} does not exist: the service will create it"]


def _few_connections(engine: Engine, processes: int) -> list[str]:
    """Return a warning if the server has too few connections for several processes."""
    needed = CONNECTIONS_PER_REPLICA * (processes + 1)
    if processes == 1 or needed <= (available := connections_for_clients(engine)):
        return []
    warning = (
        f"{processes} processes need {needed} connections during a rolling restart, and the"
        f" database server has {available} for all its clients: raise its max_connections"
    )
    return [warning]
