"""Translation of driver errors to domain errors, by class and SQLSTATE, never by text."""

from __future__ import annotations

import sqlite3
from enum import StrEnum
from typing import TYPE_CHECKING, Final

import psycopg
import sqlalchemy.exc

from milepost.domain.errors import MilepostError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

_RETRYABLE: Final = frozenset({"40001", "40P01"})
"""serialization_failure and deadlock_detected: nothing has changed, the batch may run again."""
_CHECK_VIOLATION: Final = "23514"
_UNAVAILABLE_CLASSES: Final = frozenset({"08", "53", "57", "55", "25", "58"})
"""Connection, resources, operator intervention, locks, a server that is read-only, and its system.
"""
_DISCONNECT_CLASSES: Final = frozenset({"08", "57", "25"})
"""Connection, operator intervention, and a read-only session: a new one may be writable."""
_SCHEMA_BEHIND: Final = frozenset({"42P01", "42703"})
"""undefined_table and undefined_column: the migrations have not run yet."""
_NOT_PERMITTED: Final = "42501"
"""insufficient_privilege: an operator has revoked one, and may grant it again."""
_TEMPORARY: Final = _RETRYABLE | _SCHEMA_BEHIND | {_NOT_PERMITTED}
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


class WriteRefusal(StrEnum):
    """Causes for which a database refuses every write, and goes on with reads."""

    READ_ONLY = "read_only"
    DISK_FULL = "disk_full"
    IO_ERROR = "io_error"


_REFUSALS: Final[Mapping[str, WriteRefusal]] = {
    "25006": WriteRefusal.READ_ONLY,
    "53100": WriteRefusal.DISK_FULL,
    "58030": WriteRefusal.IO_ERROR,
}
_SQLITE_REFUSALS: Final[Mapping[int, WriteRefusal]] = {
    sqlite3.SQLITE_READONLY: WriteRefusal.READ_ONLY,
    sqlite3.SQLITE_FULL: WriteRefusal.DISK_FULL,
    sqlite3.SQLITE_IOERR: WriteRefusal.IO_ERROR,
    sqlite3.SQLITE_CANTOPEN: WriteRefusal.IO_ERROR,
}


def write_refusal(error: Exception) -> WriteRefusal | None:
    """Return why the database refuses to write, or None after another error."""
    error = driver_error(error)
    if isinstance(error, psycopg.Error):
        return _REFUSALS.get(error.sqlstate or "")
    if isinstance(error, sqlite3.Error):
        return _SQLITE_REFUSALS.get(primary_code(error))
    return None


def cause(error: Exception) -> str:
    """Return the driver's first line about `error`, for the log. It contains no values."""
    error = driver_error(error)
    return str(error).partition("\n")[0] or type(error).__name__


def is_retryable(error: Exception) -> bool:
    """Return whether the database aborted the transaction, so that it may run again."""
    error = driver_error(error)
    return isinstance(error, psycopg.Error) and (
        error.sqlstate in _RETRYABLE or _has_lost_its_partition(error)
    )


def is_disconnect(error: Exception) -> bool:
    """Return whether the connection is broken after this error, or may be of a former primary."""
    error = driver_error(error)
    if isinstance(error, psycopg.Error) and error.sqlstate:
        return error.sqlstate[:2] in _DISCONNECT_CLASSES
    return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)


def translate(error: Exception) -> Exception:
    """Return the domain error for `error`, or `error` itself if it is a defect of Milepost."""
    if isinstance(error, MilepostError):
        return error
    driver = driver_error(error)
    if isinstance(driver, psycopg.Error):
        state = driver.sqlstate
        if state is None:
            lost = isinstance(driver, psycopg.OperationalError | psycopg.InterfaceError)
            return StoreUnavailable() if lost else error
        unavailable = (
            state[:2] in _UNAVAILABLE_CLASSES
            or state in _TEMPORARY
            or _has_lost_its_partition(driver)
        )
        return StoreUnavailable() if unavailable else error
    if isinstance(driver, sqlite3.Error):
        unavailable = primary_code(driver) in _SQLITE_UNAVAILABLE
        return StoreUnavailable() if unavailable else error
    return error


def _has_lost_its_partition(error: psycopg.Error) -> bool:
    """Return whether a row was sent to the default partition while its own one was attached.

    PostgreSQL reports this as a check that has no name.
    """
    return error.sqlstate == _CHECK_VIOLATION and error.diag.constraint_name is None


def primary_code(error: sqlite3.Error) -> int:
    """Return the primary result code, which is the low byte (sqlite.org/rescode.html)."""
    return extended_code(error) & 0xFF


def extended_code(error: sqlite3.Error) -> int:
    """Return the result code in full; 0 if the error has none."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code


def driver_error(error: Exception) -> Exception:
    """Return the error of the driver that SQLAlchemy has wrapped, or `error` itself."""
    if isinstance(error, sqlalchemy.exc.DBAPIError) and isinstance(error.orig, Exception):
        return error.orig
    return error
