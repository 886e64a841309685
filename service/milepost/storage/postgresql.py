"""PostgreSQL: one statement for a whole batch, and concurrent writers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from milepost.storage.database import Database
from milepost.storage.prepared_cursor import PreparedCursor, array
from milepost.storage.privileges import missing_privilege
from milepost.storage.server_requirements import server, shares_connections
from milepost.storage.session_settings import options_of, set_all
from milepost.storage.time_limit import shut_down

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager

    import psycopg
    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.types import TypeEngine

    from milepost.storage.database import Convert
    from milepost.storage.session import Session

CONNECT_TIMEOUT_S: Final = 2
"""Shortest timeout that libpq accepts."""
_CONNECTION: Final = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "application_name": "milepost",
    "client_encoding": "utf8",
    # A peer that is gone without a word is noticed within 10 s, also on a connection that idles.
    "keepalives": 1,
    "keepalives_idle": 4,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "tcp_user_timeout": 10_000,
}


def open_engine(url: str) -> Engine:
    """Return an engine whose connections are set up for Milepost, without connecting."""
    options = options_of(_text(sa.make_url(url).query.get("options", "")))
    engine = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        hide_parameters=True,  # results and metadata must not be logged
        # No start-up options: those of PGOPTIONS would be defaults from elsewhere.
        connect_args={**_CONNECTION, "options": ""},
    )

    @sa.event.listens_for(engine, "connect")
    def _set(connection: psycopg.Connection[Any], _record: object) -> None:
        set_all(connection, options)

    return engine


def _text(found: str | Sequence[str]) -> str:
    """Return the text of a parameter of a URL, which may occur several times."""
    return found if isinstance(found, str) else " ".join(found)


class PostgreSql(Database):
    """PostgreSQL, where each statement is a transaction and holds its locks only while it runs."""

    has_one_writer = False
    writes_in_ctes = True
    has_lateral_joins = True
    has_notifications = True
    has_event_days = True
    max_purged = None
    max_swept = None
    begin = "BEGIN"

    def __init__(self, dialect: Dialect) -> None:
        """See `Database`."""
        super().__init__(dialect)
        native: Any = type(dialect)
        self.statement_dialect = cast("Dialect", native(paramstyle="numeric_dollar"))

    def session_settings(self, *, pinned_plans: bool, read_only: bool) -> Sequence[str]:
        """See `Database`."""
        methods = ("seqscan", "bitmapscan", "hashjoin", "mergejoin")
        return (
            *(f"SET enable_{method} = off" for method in methods if pinned_plans),
            *(("SET plan_cache_mode = force_generic_plan",) if pinned_plans else ()),
            *(("SET default_transaction_read_only = on",) if read_only else ()),
        )

    def unmet_requirement(self, session: Session, *, allow_data_loss: bool) -> str | None:
        """See `Database`."""
        unmet = server(session).unmet_requirement(allow_data_loss=allow_data_loss)
        return unmet or missing_privilege(session)

    def shares_connections(self, engine: Engine) -> bool:
        """See `Database`."""
        return shares_connections(engine)

    def cursor(self, connection: Any) -> PreparedCursor:
        """See `Database`."""
        return PreparedCursor(connection)

    def abort(self, connection: Any) -> None:
        """Shut down the socket of the connection."""
        shut_down(connection)

    def arrays(self, inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
        """Take each input as an array; ``unnest`` turns them into rows."""
        rows = (
            sa.func.unnest(
                *(
                    sa.bindparam(name, type_=postgresql.ARRAY(type_))
                    for name, type_ in inputs.items()
                )
            )
            .table_valued(*(sa.column(name, type_) for name, type_ in inputs.items()), name="m")
            .render_derived()
        )
        return dict(sa.select(rows).cte("m").c)

    def array(self, values: Sequence[Any]) -> str:
        """See `Database`."""
        return array(values)

    def to_driver(self, type_: TypeEngine[Any]) -> Convert | None:  # noqa: ARG002 - see `Database`
        """Convert nothing: the cursor takes Python values."""
        return None

    def from_driver(self, type_: TypeEngine[Any]) -> Convert | None:  # noqa: ARG002 - see `Database`
        """Convert nothing: the cursor returns Python values."""
        return None

    def insert(self, table: sa.Table) -> postgresql.Insert:
        """See `Database`."""
        return postgresql.insert(table)

    def writing(self, connection: Connection) -> AbstractContextManager[None]:  # noqa: ARG002 - see `Database`
        """Exclude no other connection: the server coordinates writers."""
        return nullcontext()

    def lock(self, session: Session, space: int, name: str) -> None:
        """Take an advisory lock."""
        session.fetch(sa.select(sa.func.pg_advisory_xact_lock(space, sa.func.hashtext(name))))
