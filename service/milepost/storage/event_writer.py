"""What a change of status leaves behind: one event, and a delivery where somebody waits for it.

Both are written with the change itself. Where a statement may contain others that write, the three
are one statement, so that a change costs one round trip; elsewhere they share a transaction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.transitions import TABLE, Transition
from milepost.storage import snapshots
from milepost.storage.dialects import clock, host_of, random_delivery_id
from milepost.storage.prepared import Prepared
from milepost.storage.rows import HEAVY
from milepost.storage.tables import deliveries, events

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from milepost.storage.database import Cursor, Database

    Columns = Mapping[str, ColumnElement[Any]]
    Change = Callable[[Columns], Any]
    Condition = Callable[[Columns], ColumnElement[bool]]

ASKED: Final[Mapping[str, TypeEngine[Any]]] = {
    "actor": sa.Text(),
    "request_id": sa.Text(),
    "reason": sa.Text(),
}
"""What an event says of the request that caused it."""
_CHANGED: Final[Mapping[str, TypeEngine[Any]]] = {
    "id": sa.Text(),
    "revision": sa.BigInteger(),
    "owner": sa.Text(),
    "status": sa.Text(),
    "callback_url": sa.Text(),
    "callback_events": sa.Text(),
}
"""What it says of the operation as the change left it."""
_URL: Final = list(_CHANGED).index("callback_url")
_TIMES: Final[Mapping[Status | None, str]] = {
    Status.PROCESSING: "start_time",
    Status.COMPLETED: "complete_time",
    Status.FAILED: "complete_time",
    Status.CANCELLED: "cancel_time",
}
"""Where an operation itself says when it came to be in a status: its event says the same."""


class EventWriter:
    """A statement that changes operations, with the event and the delivery of each change."""

    def __init__(
        self,
        database: Database,
        inputs: Mapping[str, TypeEngine[Any]],
        change: Change,
        *,
        transition: Transition,
        event: str | None = None,
        told: Condition | None = None,
    ) -> None:
        """Compile it.

        Args:
            database: the kind that it runs on.
            inputs: of `change`; those of `ASKED` must be among them.
            change: makes the statement, which returns the operation's columns.
            transition: what happens.
            event: its type, where it is not the one of the transition.
            told: of which of the changed operations a webhook is due; of all of them if absent.
        """
        self._told = told or (lambda _changed: sa.true())
        self._event = event or TABLE[transition].event
        self._transition = transition
        self._removes = TABLE[transition].target is None
        self._time = (
            "create_time"
            if transition is Transition.CREATE
            else _TIMES.get(TABLE[transition].target)
        )
        self._steps = snapshots.STEPS if self._removes else ()
        self._at_once = database.writes_in_ctes
        if self._at_once:
            self._whole = Prepared(database, inputs, lambda m: self._one_statement(change, m))
            return
        self._whole = Prepared(database, inputs, change)
        changed = {**_CHANGED, **snapshots.TOLD} if self._removes else dict(_CHANGED)
        if self._time is not None:
            changed[self._time] = sa.BigInteger()  # as it is stored, and came back
        both = {**changed, **ASKED}
        self._event_part = Prepared(database, both, lambda m: self._insert_event(m, m))
        self._delivery_part = Prepared(database, both, self._insert_delivery)
        self._asked = [list(inputs).index(name) for name in ASKED]
        names = [column.name for column in change(_nothing(inputs)).exported_columns]
        self._changed = [names.index(name) for name in changed]
        self._left = [Prepared(database, both, build) for build in self._steps]

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Change what may be changed, and return the operations as they are now."""
        if self._at_once:
            return self._whole.run(cursor, rows)
        found: list[tuple[Any, ...]] = []
        recorded: list[list[Any]] = []
        for row in rows:
            for changed in self._whole.run(cursor, [row]):
                found.append(changed)
                recorded.append(
                    [*(changed[n] for n in self._changed), *(row[n] for n in self._asked)]
                )
        self._event_part.run(cursor, recorded)
        self._delivery_part.run(
            cursor, called := [row for row in recorded if row[_URL] is not None]
        )
        for part in self._left:
            part.run(cursor, called)
        return found

    def _one_statement(self, change: Change, m: Columns) -> sa.Select[Any]:
        changed = change(m).cte("changed")
        # Where the change finds its operations itself, one request asks for all of them.
        named = (changed.c.id == m["id"],) if "id" in m else ()
        event = self._insert_event(changed.c, m, *named).cte("event")
        delivery = self._insert_delivery(changed.c).cte("delivery")
        left = [build(changed.c).cte(f"left_{n}") for n, build in enumerate(self._steps)]
        # Nobody reads the payloads of what is gone.
        told = [
            sa.null().label(column.name) if self._removes and column.name in HEAVY else column
            for column in changed.c
        ]
        return sa.select(*told).add_cte(event, delivery, *left)

    def _insert_event(
        self, changed: Columns, m: Columns, *joined: ColumnElement[bool]
    ) -> sa.Insert:
        values = {
            "operation_id": changed["id"],
            "revision": self._revision(changed),
            "type": sa.literal_column(f"'{self._event}'"),
            "transition": sa.literal_column(f"'{self._transition}'"),
            "owner": changed["owner"],
            **{name: m[name] for name in ASKED},
            "time": clock() if self._time is None else changed[self._time],
        }
        rows = sa.select(*values.values()).where(*joined)
        return sa.insert(events).from_select(list(values), rows)

    def _insert_delivery(self, changed: Columns) -> sa.Insert:
        values = {
            "id": random_delivery_id(),
            "operation_id": changed["id"],
            "revision": self._revision(changed),
            "type": sa.literal_column(f"'{self._event}'"),
            "owner": changed["owner"],
            "callback_url": changed["callback_url"],
            "create_time": clock(),
            "host": host_of(changed["callback_url"]),
            "next_attempt_time": clock(),
        }
        if self._removes:
            values["payload"] = snapshots.snapshot(changed)
        # The types are separated by spaces, and none is part of another.
        wanted = changed["callback_events"].contains(self._event)
        rows = sa.select(*values.values()).where(
            changed["callback_url"].is_not(None), wanted, self._told(changed)
        )
        return sa.insert(deliveries).from_select(list(values), rows)

    def _revision(self, changed: Columns) -> ColumnElement[int]:
        """Return the revision of the event; a removed operation still shows the one before."""
        one = sa.literal_column("1", sa.BigInteger)
        return changed["revision"] + one if self._removes else changed["revision"]


def _nothing(inputs: Mapping[str, TypeEngine[Any]]) -> Columns:
    return {name: sa.cast(sa.null(), type_) for name, type_ in inputs.items()}
