"""A database with many operations, events and deliveries, whose planner knows them."""

import random
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa

from milepost.domain.operation import Status, new_operation_id
from milepost.storage.event_days import DAYS_AHEAD
from milepost.storage.tables import (
    api_keys,
    deliveries,
    delivery_attempts,
    events,
    operations,
    serving_periods,
)
from tests import factories

ROWS = 20_000
WITH_EVENTS = 6_000
KEYS = 2_000
DAYS = DAYS_AHEAD + 1
IDS = [new_operation_id() for _ in range(ROWS)]


def fill(engine):
    """Insert operations of busy and idle owners in every status, and analyze the tables."""
    generator = random.Random(1)  # noqa: S311 - reproducible
    owners = [generator.choice(["busy", f"owner-{generator.randrange(150)}"]) for _ in IDS]
    rows = [
        factories.row(
            list(Status)[n % 5],
            id=operation_id,
            owner=owners[n],
            function="rare" if n % 500 == 0 else f"function-{generator.randrange(7)}",
            create_time=factories.LONG_AGO + timedelta(seconds=n),
            start_time=None if n % 5 in {0, 4} else factories.LONG_AGO + timedelta(seconds=n),
            complete_time=factories.FAR_AWAY if n % 5 in {2, 3} else None,
            cancel_time=factories.FAR_AWAY if n % 5 == 4 else None,
            expire_time=factories.FAR_AWAY - timedelta(seconds=n),
        )
        for n, operation_id in enumerate(IDS)
    ]
    event_rows = [
        {
            "operation_id": operation_id,
            "revision": 1,
            "type": "operation.created",
            "transition": "create",
            "owner": owners[n],
            "actor": "actor",
            # On PostgreSQL every partition has some of them.
            "time": datetime.now(UTC) + timedelta(days=n // 2 % DAYS)
            if n % 2
            else factories.LONG_AGO,
        }
        for n, operation_id in enumerate(IDS[:WITH_EVENTS])
    ]
    webhooks = [
        {
            "id": f"msg_{n:032x}",
            "operation_id": operation_id,
            "revision": 1,
            "type": "operation.completed",
            "owner": owners[n],
            "callback_url": "https://example.com/",
            "create_time": factories.LONG_AGO,
            "status": "DELIVERED",
            "settle_time": factories.LONG_AGO,
        }
        for n, operation_id in enumerate(IDS[:WITH_EVENTS])
    ]
    attempts = [
        {
            "delivery_id": webhook["id"],
            "number": 1,
            "start_time": factories.LONG_AGO,
            "duration": timedelta(seconds=1),
            "status_code": 200,
        }
        for webhook in webhooks
    ]
    periods = [
        {"start_time": begun, "end_time": begun + timedelta(seconds=50)}
        for begun in (factories.LONG_AGO + timedelta(minutes=n) for n in range(1_000))
    ]
    keys = [
        {
            "key_id": f"{n:016x}",
            "digest": bytes(32),
            "subject": f"owner-{n}",
            "roles": "CALLER",
            "functions": "",
            "create_time": factories.LONG_AGO + timedelta(seconds=n),
        }
        for n in range(KEYS)
    ]
    with engine.begin() as connection:
        factories.insert(connection, api_keys, keys)
        factories.insert(connection, serving_periods, periods)
        factories.insert(connection, operations, rows)
        factories.insert(connection, events, event_rows)
        factories.insert(connection, deliveries, webhooks)
        factories.insert(connection, delivery_attempts, attempts)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))
