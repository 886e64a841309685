"""Operations in bulk, by SQL: what a measurement finds in the table before it begins.

Completing 5,000 operations a second needs as many that are started; making them through the service
would take longer than the measurement.
"""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tests.bench.messages import (
    CLAIMED,
    FUNCTION,
    MAX_ATTEMPTS,
    OWNER,
    PROGRESS,
    PROGRESS_MESSAGE,
    RETRY_AFTER_SECONDS,
    TTL_SECONDS,
)

FIRST_REVISION = 3
"""Of what is there in PROCESSING: created, started, moved on once."""
_OWNERS = 50
"""Of the operations that wait: a claim is fair between them."""
_DIGITS = 15
_RANDOM_BYTES = 4  # 8 characters, then "0" and 15 digits: 24 in all


def _started_values() -> dict[str, Any]:
    """The columns of an operation that is being worked on; all others keep their default."""
    now = datetime.now(UTC)
    ttl = timedelta(seconds=TTL_SECONDS)
    return {
        "function": FUNCTION,
        "owner": OWNER,
        "status": "PROCESSING",
        "progress": PROGRESS,
        "progress_message": PROGRESS_MESSAGE,
        "progress_time": now,
        "create_time": now,
        "start_time": now,
        "expire_time": now + ttl,
        "ttl": ttl,
        "retry_after": timedelta(seconds=RETRY_AFTER_SECONDS),
        "revision": FIRST_REVISION,
        "attempt": 1,
        "max_attempts": MAX_ATTEMPTS,
        "fingerprint": "",
    }


def _pending_values() -> dict[str, Any]:
    """The columns of an operation that nobody works on yet."""
    absent = {"progress", "progress_message", "progress_time", "start_time"}
    kept = {name: value for name, value in _started_values().items() if name not in absent}
    return {**kept, "function": CLAIMED, "status": "PENDING", "revision": 1, "attempt": 0}


def insert_started(connection: sa.Connection, table: sa.Table, count: int) -> list[str]:
    """There are `count` more operations in PROCESSING; returns their ids."""
    return _insert(connection, table, count, _started_values())


def insert_pending(connection: sa.Connection, table: sa.Table, count: int) -> list[str]:
    """There are `count` more operations in PENDING, of several owners; returns their ids."""
    return _insert(connection, table, count, _pending_values(), owners=_OWNERS)


def _insert(
    connection: sa.Connection, table: sa.Table, count: int, row: dict[str, Any], owners: int = 0
) -> list[str]:
    """Insert the row many times, with other ids, and with so many owners if it is not the one.

    One `INSERT … SELECT` over a counter, the same on both databases. Their events and counts per
    owner, if the service keeps any, are not made: no transition that is measured looks at them.
    """
    prefix = f"op_{secrets.token_hex(_RANDOM_BYTES)}0"
    first = 10 ** (_DIGITS - 1)
    counter = sa.select(sa.literal(first).label("n")).cte("counter", recursive=True)
    counter = counter.union_all(sa.select(counter.c.n + 1).where(counter.c.n < first + count - 1))
    values: dict[str, sa.ColumnElement[Any]] = {
        name: sa.literal(value, type_=table.c[name].type) for name, value in row.items()
    }
    if owners:
        values["owner"] = sa.literal("owner-") + sa.cast(counter.c.n % owners, sa.Text)
    identity = sa.literal(prefix) + sa.cast(counter.c.n, sa.Text)
    connection.execute(
        sa.insert(table).from_select(["id", *values], sa.select(identity, *values.values()))
    )
    return [f"{prefix}{number}" for number in range(first, first + count)]
