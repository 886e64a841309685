"""The partitions of the events on PostgreSQL, as far as they do not depend on the day."""

from __future__ import annotations

import sqlalchemy as sa

from milepost.storage.tables import PURGE_EVENT, events

events_default = sa.Table(
    "events_default",
    # Apart from the others: on SQLite the table does not exist.
    sa.MetaData(),
    *(sa.Column(column.name, column.type) for column in events.columns),
)
"""The partition of the events whose day has none."""

sa.event.listen(
    events,
    "after_create",
    sa.DDL(  # type: ignore[no-untyped-call]
        f"""
        CREATE TABLE events_default PARTITION OF events
            (CONSTRAINT events_default_pkey PRIMARY KEY (operation_id, revision)) DEFAULT;
        CREATE INDEX events_default_time_idx ON events_default (time);
        CREATE INDEX events_default_purge_time_idx ON events_default (time) WHERE {PURGE_EVENT};
        """
    ).execute_if(dialect="postgresql"),
)


def is_comparable(
    item: sa.schema.SchemaItem, name: str | None, kind: str, _reflected: object, _other: object
) -> bool:
    """Return whether alembic can compare an object of the database with its declaration here.

    It knows neither the partitions of the events nor that some indexes belong to one database.
    """
    if kind == "table":
        return not (name or "").startswith("events_")
    return not (
        isinstance(item, sa.Index) and item.table is not None and item.table.name == "events"
    )
