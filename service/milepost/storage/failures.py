"""Causes for which a database cannot be used, as sentences for its operator.

The sentences contain no names and no values: they are on a page that needs no credential. The log
and the command line have the driver's text beside them.

libpq reports what a server or a pooler refuses before the session begins as text, without its
SQLSTATE. Its own texts are English. Those of a server may be in any language: if one is unknown,
the cause is that the server refuses the connection.
"""

from __future__ import annotations

import re
import sqlite3
from typing import TYPE_CHECKING, Final

import psycopg

from milepost.domain.errors import StoreUnavailable
from milepost.storage.translate import driver_error, extended_code, primary_code, translate

if TYPE_CHECKING:
    from collections.abc import Mapping

NO_ANSWER: Final = "the database does not answer"
POOLER: Final = (
    "a connection pooler in transaction or statement mode is in front of the server: use session"
    " mode, or connect to the server itself"
)
_NO_CONNECTION: Final = "the database server has no connection left: raise its limit, or use fewer"
_NO_SCHEMA: Final = "the schema is not that of this release: run milepost migrate"
_NO_FILE: Final = (
    "the database file cannot be opened or created: it must be a file in a writable folder"
)
_LOCKED: Final = "another program locks the database file"
_TEMPORARY: Final[Mapping[str, str]] = {
    r"failed to resolve host|could not translate host name": (
        "the name of the database server does not resolve"
    ),
    r"too many (clients|connections)|remaining connection slots|no more connections allowed": (
        _NO_CONNECTION
    ),
    r"is starting up|is shutting down|in recovery mode|not yet accepting connections": (
        "the database server is starting or stopping"
    ),
    r"query_wait_timeout|server_login_retry|server login failed|cannot connect to server": (
        "a connection pooler has no connection of the server: the server is away, or the pool too"
        " small"
    ),
    r"Connection refused|\.s\.PGSQL\.\d+. failed: No such file": (
        "nothing listens at the address of the database"
    ),
    r"No route to host|Network is unreachable": "the network does not reach the database server",
}
"""Texts of what may pass without a change of the configuration, and their causes."""
_PERMANENT: Final[Mapping[str, str]] = {
    r"invalid \w+ value|invalid port number|weak sslmode": (
        "a parameter of the database URL has an invalid value"
    ),
    r"invalid connection option": "the database URL has an unknown parameter",
    r"server does not support SSL": (
        "the database server does not support TLS, which sslmode in the URL demands"
    ),
    r"(certificate|private key|key) file .*(does not exist|has group or world access)"
    r"|could not (open|load|read) .*(certificate|key)": (
        "a TLS file that the database URL names cannot be used"
    ),
    r"certificate verify failed|does not match host name": (
        "the certificate of the database server is not trusted: check sslrootcert and the host"
    ),
    r"SSL error": "TLS with the database server fails",
    r"authentication failed|no password supplied|FATAL:\s+auth failed|no such user": (
        "the database refuses the password, or does not know the role"
    ),
    r'role ".*" does not exist': "the database server does not know the role",
    r'role ".*" is not permitted to log in': "the role of the database may not log in",
    r'database ".*" does not exist|no such database': "the database does not exist on the server",
    r'permission denied for database ".*"': "the role may not connect to the database",
    r"no pg_hba.conf entry|pg_hba.conf rejects": (
        "the pg_hba.conf of the database server does not admit this client"
    ),
    r"unsupported startup parameter": (
        "a connection pooler in front of the server refuses a start-up parameter"
    ),
    r"statement pooling mode": POOLER,
    r"FATAL:": "the database server refuses the connection",
}
_PATTERNS: Final = tuple(
    (re.compile(text), cause) for text, cause in {**_TEMPORARY, **_PERMANENT}.items()
)
_PROTOCOL_VIOLATION: Final = "08P01"
"""The state of whatever PgBouncer refuses."""
_STATES: Final[Mapping[str, str]] = {
    "25006": "the database is read-only",
    "42501": "the role of the database lacks a privilege",
    "42703": _NO_SCHEMA,
    "42P01": _NO_SCHEMA,
    "53100": "the disk of the database is full",
    "53300": _NO_CONNECTION,
    "53400": "a limit of the server, the database or the role is exceeded: raise it",
    "55P03": "another transaction holds a lock for too long",
    "58030": "the disk of the database reports errors",
}
_SQLITE: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_CANTOPEN: _NO_FILE,
    sqlite3.SQLITE_READONLY: "the service may not write to the database file or its folder",
    sqlite3.SQLITE_NOTADB: "the database file is not one of SQLite",
    sqlite3.SQLITE_CORRUPT: "the database file is damaged: restore it from a backup",
    sqlite3.SQLITE_FULL: "the disk of the database file is full",
    sqlite3.SQLITE_IOERR: "the disk of the database file reports errors",
}
_SQLITE_EXTENDED: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_READONLY_DBMOVED: (
        "the database file or its log was moved, replaced or removed while it is open: put it back,"
        " or stop the service, which loses nothing unless it is killed"
    ),
}
_PASSING: Final = frozenset({NO_ANSWER, _LOCKED, _STATES["55P03"], *_TEMPORARY.values()})


def failure(error: Exception) -> str | None:
    """Return why the database cannot be used, or None if `error` is a defect of Milepost."""
    driver = driver_error(error)
    known = None
    if isinstance(driver, psycopg.Error):
        known = _of_postgresql(driver)
    elif isinstance(driver, sqlite3.Error):
        known = _SQLITE_EXTENDED.get(extended_code(driver)) or _SQLITE.get(primary_code(driver))
    elif isinstance(driver, OSError):  # of the folder, or of a file beside the database
        known = _NO_FILE
    if known is None and isinstance(translate(error), StoreUnavailable):
        return NO_ANSWER
    return known


def is_passing(cause: str) -> bool:
    """Return whether the same attempt may succeed later, without a change of any configuration."""
    return cause in _PASSING


def _of_postgresql(error: psycopg.Error) -> str | None:
    if error.sqlstate and error.sqlstate != _PROTOCOL_VIOLATION:
        return _STATES.get(error.sqlstate)
    text = str(error)
    return next((cause for pattern, cause in _PATTERNS if pattern.search(text)), None)
