"""Operations that are inserted by SQL before a measurement begins.

Completing 5,000 operations a second needs as many started ones; creating them through the service
would take longer than the measurement.
"""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from tests.bench.messages import (
    BACKOFF_MULTIPLIER,
    FUNCTION,
    INITIAL_BACKOFF_SECONDS,
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    OWNER,
    PROGRESS,
    PROGRESS_MESSAGE,
    RETRY_AFTER_SECONDS,
    TTL_SECONDS,
)

FIRST_REVISION = 3
"""Revision of an inserted operation: created, started, updated once."""
_DIGITS = 15
_RANDOM_BYTES = 4  # 8 characters, then "0" and 15 digits: 24 in all


def _started_values() -> dict[str, Any]:
    """Return the columns of a PROCESSING operation; all others keep their default."""
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
        "initial_backoff": timedelta(seconds=INITIAL_BACKOFF_SECONDS),
        "backoff": timedelta(seconds=INITIAL_BACKOFF_SECONDS),
        "backoff_multiplier": BACKOFF_MULTIPLIER,
        "max_backoff": timedelta(seconds=MAX_BACKOFF_SECONDS),
    }


def insert_started(connection: sa.Connection, table: sa.Table, count: int) -> list[str]:
    """Insert `count` more operations in PROCESSING; return their ids.

    One `INSERT … SELECT` over a counter, the same on both databases. Events and counters of the
    owner are not inserted: no measured transition reads them.
    """
    prefix = f"op_{secrets.token_hex(_RANDOM_BYTES)}0"
    first = 10 ** (_DIGITS - 1)
    counter = sa.select(sa.literal(first).label("n")).cte("counter", recursive=True)
    counter = counter.union_all(sa.select(counter.c.n + 1).where(counter.c.n < first + count - 1))
    values = {
        name: sa.literal(value, type_=table.c[name].type)
        for name, value in _started_values().items()
    }
    identity = sa.literal(prefix) + sa.cast(counter.c.n, sa.Text)
    connection.execute(
        sa.insert(table).from_select(["id", *values], sa.select(identity, *values.values()))
    )
    return [f"{prefix}{number}" for number in range(first, first + count)]
