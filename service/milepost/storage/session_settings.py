"""Settings of every PostgreSQL session, set after it has connected.

As start-up options they would be refused by poolers, or silently dropped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from milepost.storage.time_limit import time_limit

if TYPE_CHECKING:
    import psycopg

TIMEOUT_S: Final = 2.0
"""Time in which a new connection takes its settings."""
STATEMENT_TIMEOUT_MS: Final = 5_000
"""Time after which the server ends a statement; its callers have been answered long before."""
LOCK_TIMEOUT_MS: Final = 2_000
_TRANSACTION_TIMEOUT_VERSION: Final = 170_000
SETTINGS: Final = {
    # Values in text, and the SQL itself.
    "client_encoding": "UTF8",
    "timezone": "UTC",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "array_nulls": "on",
    "transform_null_equals": "off",
    # Transactions. `default_transaction_read_only` is the operator's, and makes writes fail.
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "synchronous_commit": "on",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    "lock_timeout": str(LOCK_TIMEOUT_MS),
    "idle_in_transaction_session_timeout": "10000",
    "idle_session_timeout": "0",
    # Plans: the rest is in `PostgreSql.session_settings`.
    "enable_indexscan": "on",
    "enable_indexonlyscan": "on",
    "enable_nestloop": "on",
    "enable_sort": "on",
    "jit": "off",
}
"""The settings, whatever the defaults of the server, database, role or environment are. The search
path remains the operator's."""
ADJUSTABLE: Final = frozenset(
    {
        "synchronous_commit",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "idle_session_timeout",
        "transaction_timeout",
    }
)
"""Settings that the options of the URL may change, such as to wait for a standby. The others decide
how values are read, and which plans are made."""
_OPTION: Final = re.compile(r"(?:-c\s*|--)(?P<name>[\w.-]+)=(?P<value>(?:\\.|[^\\\s])*)")


def options_of(text: str) -> dict[str, str]:
    """Return the settings of the parameter `options` of a URL; `config` has checked its form."""
    return {
        found["name"].replace("-", "_").lower(): re.sub(r"\\(.)", r"\1", found["value"])
        for found in _OPTION.finditer(text)
    }


def set_all(connection: psycopg.Connection[Any], options: dict[str, str]) -> None:
    """Set the settings of a new connection, and the options of its URL; close it if that fails."""
    try:
        _set_all(connection, options)
    except BaseException:
        connection.close()
        raise


def _set_all(connection: psycopg.Connection[Any], options: dict[str, str]) -> None:
    settings = options | SETTINGS
    if connection.pgconn.server_version >= _TRANSACTION_TIMEOUT_VERSION:
        settings["transaction_timeout"] = "0"
    settings |= {name: value for name, value in options.items() if name in ADJUSTABLE}
    calls = ", ".join(["set_config(%s, %s, false)"] * len(settings))
    values = [text for setting in settings.items() for text in setting]
    connection.autocommit = True  # a rollback would undo them
    with time_limit(connection, TIMEOUT_S):
        connection.execute(f"SELECT {calls}".encode(), values)
    connection.autocommit = False
