"""The connections to a PostgreSQL server: how many replicas open, and how many it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

CONNECTIONS_PER_REPLICA: Final = 9
"""One each for changes, claims, sweeps and reads, two for lists, two for webhooks, one that
listens."""
_FOR_CLIENTS: Final = sa.text(
    "SELECT current_setting('max_connections')::int"
    " - current_setting('superuser_reserved_connections')::int"
    " - coalesce(current_setting('reserved_connections', true)::int, 0)"  # since PostgreSQL 16
)


def connections_for_clients(engine: Engine) -> int:
    """Return the number of connections that the server has for clients without privileges."""
    with engine.connect() as connection:
        return int(connection.execute(_FOR_CLIENTS).scalar_one())
