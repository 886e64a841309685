"""Sessions: long-lived connections, each used by one thread at a time.

Frequent statements are built once from SQLAlchemy Core, compiled once, and run on the driver's
cursor, because compiling and result metadata cost more than the statement itself (ADR 0002).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, TypeVar

from milepost.domain.errors import StoreUnavailable
from milepost.storage.engine import database_of
from milepost.storage.translate import is_disconnect, is_retryable, translate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection, Engine, Row
    from sqlalchemy.sql import Executable

    from milepost.storage.database import Cursor, Runnable
    from milepost.storage.health import Health

    AnyRow = Row[*tuple[Any, ...]]
    """A row with the values of its columns, by their names."""


Found = TypeVar("Found")

MAX_TRIES: Final = 3
"""Attempts at a transaction that the database aborts (deadlock, serialization failure)."""


class Session:
    """A long-lived connection, used by one thread at a time; it reconnects after a failure."""

    def __init__(
        self,
        engine: Engine,
        *,
        pinned_plans: bool = False,
        read_only: bool = False,
        health: Health | None = None,
    ) -> None:
        """Connect at first use.

        Args:
            engine: the engine of the database.
            pinned_plans: plan every prepared statement once, by primary key or along an index, so
                that a statement over few rows never becomes a scan because the table was small
                when it was planned.
            read_only: refuse to write.
            health: the record of failures that the session shares with others.
        """
        self._health = health
        self.database = database_of(engine)
        self._engine = engine
        self._connection: Connection | None = None
        self._shared = False
        self._is_rolled_back = False
        self._read_only = read_only
        self._settings = self.database.session_settings(
            pinned_plans=pinned_plans, read_only=read_only
        )

    @property
    def connection(self) -> Connection:
        """The connection, opened at first use."""
        if self._connection is None:
            # Autocommit: each statement is a transaction, unless `transaction` begins one.
            connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            driver: Any = connection.connection.driver_connection
            self._cursor: Cursor = self.database.cursor(driver)
            self._connection = connection  # first: `reset` drops it if a setting fails
            try:
                for statement in self._settings:
                    self._cursor.execute(statement)
            except BaseException:
                self.reset()
                raise
        return self._connection

    @property
    def cursor(self) -> Cursor:
        """The driver's cursor of the connection."""
        self.connection  # noqa: B018 - opens it
        return self._cursor

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Commit all statements inside, or none of them."""
        with (
            self.database.writing(self.connection),
            self._bracket(self.database.begin, "COMMIT", "ROLLBACK") as cursor,
        ):
            yield cursor

    def atomic(self) -> AbstractContextManager[Cursor]:
        """Keep all statements inside, or none of them, also within a shared commit."""
        return self.savepoint() if self._shared else self.transaction()

    def savepoint(self) -> AbstractContextManager[Cursor]:
        """Keep all statements inside, or none of them, within a transaction."""
        return self._bracket("SAVEPOINT one", "RELEASE one", "ROLLBACK TO one")

    def group(self) -> AbstractContextManager[Cursor]:
        """Keep several runs and reads inside, or none of them, also within a shared commit."""
        if self._shared:
            # A name of its own, because the runs inside have savepoints too.
            return self._bracket("SAVEPOINT several", "RELEASE several", "ROLLBACK TO several")
        return self.transaction()

    @contextlib.contextmanager
    def _bracket(self, begin: str, keep: str, undo: str) -> Iterator[Cursor]:
        cursor = self.cursor
        cursor.execute(begin)
        try:
            yield cursor
            cursor.execute(keep)
        except BaseException:
            try:
                cursor.execute(undo)
            except Exception:  # noqa: BLE001 - the first error is the one to report
                self._is_rolled_back = True
            raise

    @property
    def shares_commits(self) -> bool:
        """True if `shared_commit` makes one transaction of several statements."""
        return self.database.has_one_writer and not self._read_only

    @contextlib.contextmanager
    def shared_commit(self) -> Iterator[None]:
        """Share one commit among the statements inside, if the database has one writer.

        With one writer all of them are one transaction. Otherwise each statement remains a
        transaction: it holds its locks only while it runs, and fails alone.
        """
        if not self.shares_commits:
            yield
            return
        self._shared, self._is_rolled_back = True, False
        try:
            with self.transaction():
                yield
        finally:
            self._shared = False

    def require_shared_transaction(self) -> None:
        """Raise `StoreUnavailable` if the database has rolled back the shared transaction itself.

        SQLite does so after some failed statements, such as one without room on the disk; earlier
        statements of the batch are undone too, and later ones would commit alone.
        """
        if self._shared and self._is_rolled_back:
            raise StoreUnavailable

    def run(self, statement: Runnable, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run a statement for `rows`: for all of them, or for none if it fails."""
        if self.database.writes_in_ctes:  # one statement writes everything
            return statement.run(self.cursor, rows)
        with self.atomic() as cursor:
            return statement.run(cursor, rows)

    def read(self, statement: Runnable, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run a read-only statement; each row is as last committed."""
        return statement.run(self.cursor, rows)

    def fetch(self, query: Executable, values: Mapping[str, Any] | None = None) -> Sequence[AnyRow]:
        """Run a query with its values, and return its rows in Python types."""
        return self.connection.execute(query, values).all()

    def with_retries(self, run: Callable[[], Found], *, repeatable: bool = False) -> Found:
        """Return the result of `run`, which runs again if the database aborted its transaction.

        Args:
            run: one transaction, or statements of which none has changed anything before.
            repeatable: also run it again after a lost connection.

        Raises:
            Exception: the domain error of the last try.
        """
        for tries_left in reversed(range(MAX_TRIES)):
            try:
                return run()
            except Exception as error:
                failure = self.failed(error)
                lost = repeatable and isinstance(failure, StoreUnavailable)
                if tries_left and (is_retryable(error) or lost):
                    continue
                raise failure from error
        raise AssertionError  # the last try returns or raises

    def failed(self, error: Exception) -> Exception:
        """Return the domain error for `error`, and drop the connection if it is broken."""
        if self._health is not None:
            self._health.note_failure(error, may_write=not self._read_only)
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
            with contextlib.suppress(Exception):  # the connection may be closed concurrently
                self.database.abort(connection.connection.driver_connection)
