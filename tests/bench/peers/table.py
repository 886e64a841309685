"""The table of the peers, which is that of the service with all constraints and indexes."""

import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from milepost.storage.tables import operations
from tests.bench.messages import (
    BACKOFF_MULTIPLIER,
    INITIAL_BACKOFF_SECONDS,
    MAX_ATTEMPTS,
    MAX_BACKOFF_SECONDS,
    PRIORITY,
    RETRY_AFTER_SECONDS,
    TTL_SECONDS,
)

table = operations


def create_table(engine: sa.Engine) -> None:
    """Create the table, and no other."""
    table.metadata.create_all(engine, tables=[table])


def new_values(owner: str, function: str, request_id: str | None) -> dict[str, Any]:
    """Return the columns of a new operation."""
    now = datetime.now(UTC)
    ttl = timedelta(seconds=TTL_SECONDS)
    return {
        "id": f"op_{secrets.token_hex(12)}",
        "function": function,
        "owner": owner,
        "status": "PENDING",
        "create_time": now,
        "expire_time": now + ttl,
        "ttl": ttl,
        "retry_after": timedelta(seconds=RETRY_AFTER_SECONDS),
        "revision": 1,
        "attempt": 0,
        "max_attempts": MAX_ATTEMPTS,
        "request_id": request_id,
        "fingerprint": "",
        "failed_attempts": 0,
        "priority": PRIORITY,
        "initial_backoff": timedelta(seconds=INITIAL_BACKOFF_SECONDS),
        "backoff": timedelta(seconds=INITIAL_BACKOFF_SECONDS),
        "backoff_multiplier": BACKOFF_MULTIPLIER,
        "max_backoff": timedelta(seconds=MAX_BACKOFF_SECONDS),
    }
