"""An outbox after a long life or before a busy moment: deliveries inserted in bulk by SQL."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.storage.dialects import clock
from milepost.storage.tables import deliveries, operations
from tests import factories

_FIRST = 10**14
"""First value of a counter with 15 digits, so that ids have their full length."""


def insert_finished(connection: sa.Connection, count: int) -> None:
    """Insert `count` deliveries that were finished long ago."""
    number = _numbers(count)
    _insert(
        connection,
        deliveries,
        {
            "id": sa.literal(f"msg_f{'0' * 16}") + sa.cast(number, sa.Text),
            "operation_id": sa.literal("op_f00000000") + sa.cast(number, sa.Text),
            "revision": 3,
            "type": "operation.completed",
            "owner": factories.OWNER,
            "callback_url": "https://example.com/",
            "host": "example.com",
            "create_time": factories.LONG_AGO,
            "status": "DELIVERED",
            "attempts": 1,
            "next_attempt_time": factories.LONG_AGO,
            "settle_time": factories.LONG_AGO,
        },
    )


def insert_due(
    connection: sa.Connection,
    count: int,
    urls: Sequence[str],
    *,
    owners: Sequence[str] = (factories.OWNER,),
    part: int = 0,
) -> None:
    """Insert `count` completed operations, each with a due delivery, to `urls` in turn.

    Args:
        connection: a connection in a transaction.
        count: number of deliveries.
        urls: addresses of the receivers.
        owners: owners of the operations; each has its turn at every URL.
        part: distinguishes the ids of several calls.
    """
    number = _numbers(count)
    digits = sa.cast(number, sa.Text)
    identity = sa.literal(f"op_{part:09d}") + digits
    row = factories.row(Status.COMPLETED, revision=3)
    _insert(connection, operations, row | {"id": identity, "create_time": clock()})
    turn = number % len(urls)
    owner = _by_turn(number // len(urls) % len(owners), owners)
    _insert(
        connection,
        deliveries,
        {
            "id": sa.literal(f"msg_{part:017d}") + digits,
            "operation_id": identity,
            "revision": 3,
            "type": "operation.completed",
            "owner": owner,
            "callback_url": _by_turn(turn, urls),
            "host": _by_turn(turn, [urlsplit(url).netloc for url in urls]),
            "create_time": clock(),
            "next_attempt_time": clock(),
        },
    )


def count_by_status(connection: sa.Connection) -> dict[str, int]:
    """Return the number of deliveries in each status."""
    query = sa.select(deliveries.c.status, sa.func.count()).group_by(deliveries.c.status)
    return dict(connection.execute(query).all())


def _by_turn(turn: sa.ColumnElement[int], texts: Sequence[str]) -> sa.ColumnElement[str]:
    return sa.case(dict(enumerate(texts)), value=turn)


def _numbers(count: int) -> sa.ColumnElement[int]:
    counter = sa.select(sa.literal(_FIRST, sa.BigInteger()).label("n")).cte(recursive=True)
    following = sa.select(counter.c.n + 1).where(counter.c.n < _FIRST + count - 1)
    number: sa.ColumnElement[int] = counter.union_all(following).c.n
    return number


def _insert(connection: sa.Connection, table: sa.Table, row: dict[str, Any]) -> None:
    values = [
        value if isinstance(value, sa.ColumnElement) else sa.literal(value, table.c[name].type)
        for name, value in row.items()
    ]
    connection.execute(sa.insert(table).from_select(list(row), sa.select(*values)))
