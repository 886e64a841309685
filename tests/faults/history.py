"""What an operation has been through, read from the database beside the service."""

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from milepost.domain.lifecycle import TABLE, TERMINAL, Move
from milepost.domain.operation import Status
from milepost.storage.engine import open_engine
from milepost.storage.tables import events, operations


@dataclass(frozen=True)
class History:
    """One operation and its events, oldest first."""

    row: dict[str, Any]
    events: list[dict[str, Any]]

    @property
    def moves(self) -> list[Move]:
        """The moves that changed its status."""
        return [Move(event["move"]) for event in self.events]

    def check(self) -> None:
        """Every event follows from the one before by the table of moves, to the status stored."""
        status: Status | None = None
        revision = 0
        for event in self.events:
            rule = TABLE[Move(event["move"])]
            if status is None:
                assert Move(event["move"]) is Move.CREATE, self
            else:
                assert status not in TERMINAL, self
                assert status in rule.changing, self
            assert event["type"] == rule.event, self
            assert event["revision"] > revision, self
            status, revision = rule.enters, event["revision"]
        assert status == self.row["status"], self
        assert revision <= self.row["revision"], self


def histories(database_url: str) -> dict[str, History]:
    """The history of every operation of the database, by id."""
    engine = open_engine(database_url)
    with engine.connect() as connection:
        rows = connection.execute(sa.select(operations)).mappings().all()
        told = connection.execute(sa.select(events).order_by(events.c.revision)).mappings().all()
    engine.dispose()
    found = {row["id"]: History(row=dict(row), events=[]) for row in rows}
    for event in told:
        found[event["operation_id"]].events.append(dict(event))
    return found
