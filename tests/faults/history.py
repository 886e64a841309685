"""The history of operations, read directly from the database."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.transitions import TABLE, TERMINAL, Transition
from milepost.storage.engine import open_engine
from milepost.storage.tables import events, operations


@dataclass(frozen=True)
class History:
    """One operation and its events, oldest first."""

    row: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def transitions(self) -> list[Transition]:
        """The transitions that changed its status."""
        return [Transition(event["transition"]) for event in self.events]

    def check(self) -> None:
        """Assert that every event follows from the one before by the transition table."""
        status: Status | None = None
        revision = 0
        for event in self.events:
            rule = TABLE[Transition(event["transition"])]
            if status is None:
                assert Transition(event["transition"]) is Transition.CREATE, self
            else:
                assert status not in TERMINAL, self
                assert status in rule.recorded, self
            assert event["type"] == rule.event, self
            assert event["revision"] > revision, self
            status, revision = rule.target, event["revision"]
        assert status == self.row["status"], self
        assert revision <= self.row["revision"], self


def histories(database_url: str) -> dict[str, History]:
    """Return the history of every operation of the database, by id."""
    engine = open_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(operations)).mappings().all()
        stored_events = (
            connection.execute(sa.select(events).order_by(events.c.revision)).mappings().all()
        )
    engine.dispose()
    found = {row["id"]: History(row=dict(row), events=[]) for row in rows}
    for event in stored_events:
        found[event["operation_id"]].events.append(dict(event))
    return found
