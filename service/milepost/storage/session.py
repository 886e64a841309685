"""Sessions: held connections, each used by one thread at a time.

Hot statements are built once from SQLAlchemy Core, compiled once, and run on the driver's cursor:
compiling and result metadata cost more than the statement itself (ADR 0002 has the figures).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from milepost.storage.engine import database_of
from milepost.storage.translate import is_disconnect, translate

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection, Engine, Row
    from sqlalchemy.sql import Executable

    from milepost.storage.database import Cursor, Runnable

    AnyRow = Row[*tuple[Any, ...]]
    """A row with the values of its columns, by their names."""


class Session:
    """A held connection, used by one thread at a time; it reconnects after a failure."""

    def __init__(
        self, engine: Engine, *, pinned_plans: bool = False, read_only: bool = False
    ) -> None:
        """Connect at first use.

        Args:
            engine: where to connect.
            pinned_plans: plan every prepared statement once, by primary key or along an index: a
                statement over a handful of rows must never turn into a scan because the table was
                small once.
            read_only: refuse to write.
        """
        self.database = database_of(engine)
        self._engine = engine
        self._connection: Connection | None = None
        self._shared = False
        self._read_only = read_only
        self._settings = self.database.session_settings(
            pinned_plans=pinned_plans, read_only=read_only
        )

    @property
    def connection(self) -> Connection:
        """The connection, which is opened if there is none."""
        if self._connection is None:
            # Autocommit: a statement is its own transaction, unless the code says where one begins.
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = connection.connection.driver_connection
            self._cursor: Cursor = self.database.cursor(driver)
            for statement in self._settings:
                self._cursor.execute(statement)
            self._connection = connection
        return self._connection

    @property
    def cursor(self) -> Cursor:
        """The driver's cursor of the connection."""
        self.connection  # noqa: B018 - opens it
        return self._cursor

    def transaction(self) -> AbstractContextManager[Cursor]:
        """Commit what happens inside, or none of it."""
        return self._bracket(self.database.begin, "COMMIT", "ROLLBACK")

    def atomic(self) -> AbstractContextManager[Cursor]:
        """Keep what happens inside, or none of it, whatever else shares the commit."""
        return self.savepoint() if self._shared else self.transaction()

    def savepoint(self) -> AbstractContextManager[Cursor]:
        """Keep what happens inside, or none of it, within a transaction."""
        return self._bracket("SAVEPOINT kind", "RELEASE kind", "ROLLBACK TO kind")

    def whole(self) -> AbstractContextManager[Cursor]:
        """Let several runs and reads happen as one, or none of them, wherever this is."""
        if self._shared:
            # A name of its own: what runs inside has savepoints too.
            return self._bracket("SAVEPOINT whole", "RELEASE whole", "ROLLBACK TO whole")
        return self.transaction()

    @contextlib.contextmanager
    def _bracket(self, begin: str, keep: str, undo: str) -> Iterator[Cursor]:
        cursor = self.cursor
        cursor.execute(begin)
        try:
            yield cursor
            cursor.execute(keep)
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                cursor.execute(undo)
            raise

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Let what happens inside share one commit, where commits are what costs.

        With one writer all of it is one transaction. Otherwise each statement remains one by
        itself: it holds its locks no longer than it runs, and fails alone.
        """
        if not self.database.has_one_writer or self._read_only:
            yield
            return
        self._shared = True
        try:
            with self.transaction():
                yield
        finally:
            self._shared = False

    def run(self, statement: Runnable, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run a statement for `rows`: for all of them, or for none if it fails."""
        if self.database.writes_in_ctes:  # one statement, whatever it changes
            return statement.run(self.cursor, rows)
        with self.atomic() as cursor:
            return statement.run(cursor, rows)

    def read(self, statement: Runnable, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run one statement that only reads, each row as last committed."""
        return statement.run(self.cursor, rows)

    def fetch(self, query: Executable, values: Mapping[str, Any] | None = None) -> Sequence[AnyRow]:
        """Run a query with its values, and return its rows in Python types."""
        return self.connection.execute(query, values).all()

    def failed(self, error: Exception) -> Exception:
        """Return what `error` means, and drop the connection if it is of no use any more."""
        if is_disconnect(error):
            self.reset()
        return translate(error)

    def reset(self) -> None:
        """Drop the connection; the next use opens a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(Exception):  # it may be broken already
                connection.invalidate()
                connection.close()

    def abort(self) -> None:
        """End a statement that hangs, from another thread."""
        connection = self._connection
        if connection is not None:
            with contextlib.suppress(Exception):  # the connection may be gone this very moment
                self.database.abort(connection.connection.driver_connection)
