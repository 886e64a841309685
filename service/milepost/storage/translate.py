"""Translation of driver errors to domain errors, by class and SQLSTATE, never by text."""

from __future__ import annotations

import sqlite3
from typing import Final

import psycopg
import sqlalchemy.exc

from milepost.domain.errors import MilepostError, StoreUnavailable

_RETRYABLE: Final = frozenset({"40001", "40P01"})
"""serialization_failure and deadlock_detected: nothing has changed, the batch may run again."""
_UNAVAILABLE_CLASSES: Final = frozenset({"08", "53", "57", "55", "25"})
"""Connection, resources, operator intervention, locks, and a server that is read-only."""
_SCHEMA_BEHIND: Final = frozenset({"42P01", "42703"})
"""undefined_table and undefined_column: the migrations have not run yet."""
_SQLITE_UNAVAILABLE: Final = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_CANTOPEN,
    }
)


def is_retryable(error: Exception) -> bool:
    """Return whether the database aborted the transaction, so that it may run again."""
    error = _driver_error(error)
    return isinstance(error, psycopg.Error) and error.sqlstate in _RETRYABLE


def is_disconnect(error: Exception) -> bool:
    """Return whether the connection is broken after this error."""
    error = _driver_error(error)
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError) and not (
        error.sqlstate and error.sqlstate[:2] not in {"08", "57", "25"}
    )


def translate(error: Exception) -> Exception:
    """Return the domain error for `error`, or `error` itself if it is a defect of Milepost."""
    if isinstance(error, MilepostError):
        return error
    driver = _driver_error(error)
    if isinstance(driver, psycopg.Error):
        state = driver.sqlstate
        if state is None:
            lost = isinstance(driver, psycopg.OperationalError | psycopg.InterfaceError)
            return StoreUnavailable() if lost else error
        unavailable = state[:2] in _UNAVAILABLE_CLASSES or state in _RETRYABLE | _SCHEMA_BEHIND
        return StoreUnavailable() if unavailable else error
    if isinstance(driver, sqlite3.Error):
        # The low byte is the primary result code (sqlite.org/rescode.html).
        unavailable = getattr(driver, "sqlite_errorcode", 0) & 0xFF in _SQLITE_UNAVAILABLE
        return StoreUnavailable() if unavailable else error
    return error


def _driver_error(error: Exception) -> Exception:
    if isinstance(error, sqlalchemy.exc.DBAPIError) and isinstance(error.orig, Exception):
        return error.orig
    return error
