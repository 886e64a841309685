"""The event of a status change, and its delivery if the operation has a callback URL.

Both are written with the change. On a database whose statements may contain others that write, the
three are one statement, so that a change costs one round trip; elsewhere they share a transaction.
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
    Build = Callable[[Columns], Any]
    Condition = Callable[[Columns], ColumnElement[bool]]

REQUEST_INPUTS: Final[Mapping[str, TypeEngine[Any]]] = {
    "actor": sa.Text(),
    "request_id": sa.Text(),
    "reason": sa.Text(),
}
"""The inputs that an event takes from the request."""
_CHANGED: Final[Mapping[str, TypeEngine[Any]]] = {
    "id": sa.Text(),
    "revision": sa.BigInteger(),
    "owner": sa.Text(),
    "status": sa.Text(),
    "callback_url": sa.Text(),
    "callback_events": sa.Text(),
    "attempt": sa.Integer(),
    "worker": sa.Text(),
}
"""The columns that an event and a delivery take from the changed operation."""
_URL: Final = list(_CHANGED).index("callback_url")
_TIMES: Final[Mapping[Status | None, str]] = {
    Status.PROCESSING: "start_time",
    Status.COMPLETED: "complete_time",
    Status.FAILED: "complete_time",
    Status.CANCELLED: "cancel_time",
}
"""The columns with the time at which an operation entered a status; its event has the same time."""


class EventWriter:
    """A statement that changes operations, with the event and the delivery of each change."""

    def __init__(
        self,
        database: Database,
        inputs: Mapping[str, TypeEngine[Any]],
        build: Build,
        *,
        transition: Transition,
        event: str | None = None,
        needs_webhook: Condition | None = None,
    ) -> None:
        """Compile the statement.

        Args:
            database: the database that it runs on.
            inputs: the inputs of `build`, which include `REQUEST_INPUTS`.
            build: builds the statement of the change, which returns the operation's columns.
            transition: the transition of the change.
            event: the type of the event, unless it is the one of the transition.
            needs_webhook: the changed operations that get a webhook; None for all.
        """
        self._needs_webhook = needs_webhook or (lambda _changed: sa.true())
        self._event = event or TABLE[transition].event
        self._transition = transition
        self._removes = TABLE[transition].target is None
        self._time = _time(transition)
        self._steps = snapshots.STEPS if self._removes else ()
        # An operation that is removed keeps the errors that it has; none are requested.
        has_errors = "errors" in inputs and not self._removes
        self._requested = (*REQUEST_INPUTS, *(("errors",) if has_errors else ()))
        self._at_once = database.writes_in_ctes
        if self._at_once:
            self._whole = Prepared(database, inputs, lambda m: self._one_statement(build, m))
            return
        self._whole = Prepared(database, inputs, build)
        changed = {**_CHANGED, **snapshots.SNAPSHOT_TYPES} if self._removes else dict(_CHANGED)
        if self._time is not None:
            changed[self._time] = sa.BigInteger()  # as stored and returned
        both = {**changed, **{name: inputs[name] for name in self._requested}}
        self._event_part = Prepared(database, both, lambda m: self._insert_event(m, m))
        self._delivery_part = Prepared(database, both, self._insert_delivery)
        self._request_positions = [list(inputs).index(name) for name in self._requested]
        names = [column.name for column in build(_nulls(inputs)).exported_columns]
        self._changed_positions = [names.index(name) for name in changed]
        self._snapshot_parts = [Prepared(database, both, step) for step in self._steps]

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Change the operations that meet the conditions; return them as they are now."""
        if self._at_once:
            return self._whole.run(cursor, rows)
        results: list[tuple[Any, ...]] = []
        event_rows: list[list[Any]] = []
        for row in rows:
            for changed in self._whole.run(cursor, [row]):
                results.append(changed)
                event_rows.append(
                    [
                        *(changed[n] for n in self._changed_positions),
                        *(row[n] for n in self._request_positions),
                    ]
                )
        self._event_part.run(cursor, event_rows)
        self._delivery_part.run(
            cursor, with_callback := [row for row in event_rows if row[_URL] is not None]
        )
        for part in self._snapshot_parts:
            part.run(cursor, with_callback)
        return results

    def _one_statement(self, build: Build, m: Columns) -> sa.Select[Any]:
        changed = build(m).cte("changed")
        # A change without such an input selects its operations itself: one request changes all.
        named = [changed.c[name] == m[name] for name in ("id", "number") if name in m]
        event = self._insert_event(changed.c, m, *named).cte("event")
        delivery = self._insert_delivery(changed.c).cte("delivery")
        steps = [step(changed.c).cte(f"step_{n}") for n, step in enumerate(self._steps)]
        # The payloads of removed operations are not needed.
        columns = [
            sa.null().label(column.name) if self._removes and column.name in HEAVY else column
            for column in changed.c
        ]
        return sa.select(*columns).add_cte(event, delivery, *steps)

    def _insert_event(
        self, changed: Columns, m: Columns, *joined: ColumnElement[bool]
    ) -> sa.Insert:
        values = {
            "operation_id": changed["id"],
            "revision": self._revision(changed),
            "type": sa.literal_column(f"'{self._event}'"),
            "transition": sa.literal_column(f"'{self._transition}'"),
            "owner": changed["owner"],
            "attempt": changed["attempt"],
            "worker": changed["worker"],
            **{name: m[name] for name in self._requested},
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
        # The types are separated by spaces; no type is part of another.
        wanted = changed["callback_events"].contains(self._event)
        rows = sa.select(*values.values()).where(
            changed["callback_url"].is_not(None), wanted, self._needs_webhook(changed)
        )
        return sa.insert(deliveries).from_select(list(values), rows)

    def _revision(self, changed: Columns) -> ColumnElement[int]:
        """Return the revision of the event; a removed operation has the revision before it."""
        one = sa.literal_column("1", sa.BigInteger)
        return changed["revision"] + one if self._removes else changed["revision"]


def _time(transition: Transition) -> str | None:
    """Return the column with the time of a transition; None if no column has it."""
    if transition is Transition.CREATE:
        return "create_time"
    return None if transition is Transition.REQUEST_CANCEL else _TIMES.get(TABLE[transition].target)


def _nulls(inputs: Mapping[str, TypeEngine[Any]]) -> Columns:
    return {name: sa.cast(sa.null(), type_) for name, type_ in inputs.items()}
