"""What a change of status leaves behind in its transaction: one event, and its deliveries."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from milepost.domain.lifecycle import TABLE, Change
from milepost.storage.statements import callback_events

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from milepost.domain.operation import Operation

DELIVERY_RANDOM_BYTES: Final = 16


@dataclass(frozen=True, slots=True)
class Recorded:
    """One committed change: what was asked, what became of the operation, its row."""

    change: Change
    operation: Operation
    row: Sequence[Any]
    type: str | None = None
    """The type of the event, where it is not the one of the move."""

    @property
    def event_type(self) -> str:
        """The type of the event."""
        return self.type or TABLE[self.change.move].event

    @property
    def revision(self) -> int:
        """The revision of the event; a removed operation has one more than it last showed."""
        removed = TABLE[self.change.move].enters is None
        return self.operation.revision + (1 if removed else 0)


def event_row(record: Recorded) -> tuple[Any, ...]:
    """Return the values of one row of `tables.events`, but for its time."""
    change = record.change
    return (
        record.operation.id,
        record.revision,
        record.event_type,
        change.move.value,
        record.operation.owner,
        change.actor,
        change.request_id,
        change.reason,
    )


def delivery_rows(record: Recorded) -> Iterator[tuple[Any, ...]]:
    """Return the values of the rows of `tables.deliveries` that the record calls for."""
    operation = record.operation
    if operation.callback_url is not None and record.event_type in callback_events(record.row):
        yield (
            f"msg_{secrets.token_hex(DELIVERY_RANDOM_BYTES)}",
            operation.id,
            record.revision,
            record.event_type,
            operation.owner,
            operation.callback_url,
        )
