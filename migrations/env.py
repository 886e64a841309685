"""How alembic reaches the database. Run through ``milepost migrate``, never directly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic import context

from milepost.storage.event_partitions import is_comparable
from milepost.storage.tables import metadata

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

# An arbitrary constant: replicas that migrate at once take turns on it.
ADVISORY_LOCK = 0x6D_69_6C_65_70_6F_73_74


def run(engine: Engine) -> None:
    """Run the migrations in one transaction, one process at a time.

    A statement that waits longer than a moment for a lock gives up, so that a migration never
    stops the service that runs beside it; run it again.
    """
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.text("SET lock_timeout = '4s'"))
            connection.execute(sa.text("SET statement_timeout = 0"))
            connection.execute(sa.select(sa.func.pg_advisory_lock(ADVISORY_LOCK)))
            connection.commit()
        # Ours and not alembic's, which on SQLite would be one for each step: another process could
        # then take the same step.
        with connection.begin():
            context.configure(
                connection=connection, target_metadata=metadata, include_object=is_comparable
            )
            context.run_migrations()


run(context.config.attributes["engine"])
