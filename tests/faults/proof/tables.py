"""The final tables of a run, read past the service, and the timeline of each operation."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.transitions import STARTING, TABLE, Transition
from milepost.storage.engine import open_engine
from milepost.storage.tables import deliveries, delivery_attempts, events, operations, quotas

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class State:
    """An operation after one of its revisions."""

    status: Status
    attempt: int


@dataclass(frozen=True, slots=True)
class Timeline:
    """The events of one operation, and its row unless it was removed."""

    id: str
    events: Sequence[Row]
    """In the order of revisions."""
    row: Row | None

    @property
    def last_revision(self) -> int:
        """The revision of the last change."""
        last = int(self.events[-1]["revision"]) if self.events else 0
        return last if self.row is None else max(last, int(self.row["revision"]))

    @property
    def is_removed(self) -> bool:
        """True if its last event is the purge."""
        return bool(self.events) and self.events[-1]["transition"] == Transition.PURGE

    @property
    def end(self) -> Row | None:
        """The event that ended it; None while it is active."""
        ends = [event for event in self.events if is_end(event)]
        return ends[0] if ends else None

    def event_at(self, revision: int) -> Row | None:
        """Return the event of a revision; None for progress, or without a change."""
        found = [event for event in self.events if event["revision"] == revision]
        return found[0] if found else None

    def state_at(self, revision: int) -> State | None:
        """Return the operation after a revision; None if it never had that revision."""
        before = [event for event in self.events if event["revision"] <= revision]
        if not before or revision > self.last_revision:
            return None
        status = TABLE[Transition(before[-1]["transition"])].target
        is_progress = before[-1]["revision"] < revision
        if status is None or (is_progress and status is not Status.PROCESSING):
            return None
        attempt = sum(Transition(event["transition"]) in STARTING for event in before)
        return State(status, attempt)


def is_end(event: Row) -> bool:
    """Return True if the operation ends with this event."""
    target = TABLE[Transition(event["transition"])].target
    return target is not None and target not in (Status.PENDING, Status.PROCESSING)


@dataclass(frozen=True, slots=True)
class Tables:
    """The final tables."""

    timelines: Mapping[str, Timeline]
    """By operation."""
    deliveries: Sequence[Row] = ()
    attempts: Mapping[str, Sequence[Row]] = field(default_factory=dict)
    """By delivery."""
    reserved: Mapping[str, int] = field(default_factory=dict)
    """The upper bound of active operations, by owner."""


def read(database_url: str) -> Tables:
    """Return the tables of a database."""
    engine = open_engine(database_url)
    with engine.connect() as connection:

        def rows(query: sa.Select[Any]) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(query).mappings()]

        found = {row["id"]: row for row in rows(sa.select(operations))}
        changes = rows(sa.select(events).order_by(events.c.revision))
        sent = rows(sa.select(deliveries))
        tried = rows(sa.select(delivery_attempts).order_by(delivery_attempts.c.number))
        owners = rows(sa.select(quotas))
    engine.dispose()
    return Tables(
        timelines=timelines(found, changes),
        deliveries=sent,
        attempts=_grouped(tried, "delivery_id"),
        reserved={row["owner"]: row["reserved"] for row in owners},
    )


def timelines(rows: Mapping[str, Row], changes: Sequence[Row]) -> dict[str, Timeline]:
    """Return the timeline of each operation that has a row or an event."""
    by_operation = _grouped(changes, "operation_id")
    return {
        operation_id: Timeline(
            operation_id, by_operation.get(operation_id, []), rows.get(operation_id)
        )
        for operation_id in (*by_operation, *(id_ for id_ in rows if id_ not in by_operation))
    }


def _grouped(rows: Sequence[Row], column: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        found[row[column]].append(row)
    return dict(found)
