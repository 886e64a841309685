"""The interface of the databases that Milepost runs on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    import sqlalchemy as sa
    from sqlalchemy import ColumnElement
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import Connection, Dialect, Engine
    from sqlalchemy.types import TypeEngine

    from milepost.storage.session import Session

    Convert = Callable[[Any], Any]


class Cursor(Protocol):
    """The part of a driver's cursor (PEP 249) that a session uses."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Sequence[Any], /) -> Any:
        """Run one statement without results for each set of parameters."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""


class Runnable(Protocol):
    """A statement, or several that belong together, which run for many rows of input."""

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run for `rows`; return the result rows."""


class Database(ABC):
    """A database product; see `postgresql.py` and `sqlite.py`."""

    has_one_writer: ClassVar[bool]
    """Writers exclude each other. A batch then shares one commit and one connection, and needs no
    locks; otherwise claims and sweeps have their own connections, and do not wait for other writes.
    """
    writes_in_ctes: ClassVar[bool]
    """A statement may contain others that write, such as the event and the delivery of a change."""
    has_lateral_joins: ClassVar[bool]
    has_notifications: ClassVar[bool]
    """Replicas can notify each other; otherwise the service is only one process."""
    has_event_days: ClassVar[bool]
    """Each day of the events is a partition, which is dropped as a whole; see `event_days.py`."""
    max_purged: ClassVar[int | None]
    """Operations that one statement may remove; None if payloads do not leave the database."""
    max_swept: ClassVar[int | None]
    """The same for changes by the sweeper that need no payloads; None if others write meanwhile."""
    begin: ClassVar[str]
    """The statement that begins a transaction that writes."""
    statement_dialect: Dialect
    """The dialect of statements on the cursor of a session, without named parameters."""

    def __init__(self, dialect: Dialect) -> None:
        """Use SQLAlchemy's `dialect`."""
        self.dialect = dialect

    @abstractmethod
    def session_settings(self, *, pinned_plans: bool, read_only: bool) -> Sequence[str]:
        """Return the statements that configure a connection; see `Session`."""

    @abstractmethod
    def unmet_requirement(self, session: Session, *, allow_data_loss: bool) -> str | None:
        """Return why Milepost cannot run on the database now, and the remedy, or None.

        With `allow_data_loss` the database may lose acknowledged changes in a crash.
        """

    @abstractmethod
    def shares_connections(self, engine: Engine) -> bool:
        """Return whether a pooler gives a connection to another client after each transaction."""

    @abstractmethod
    def cursor(self, connection: Any) -> Cursor:
        """Return the cursor of a driver's connection, for prepared statements."""

    @abstractmethod
    def abort(self, connection: Any) -> None:
        """End a statement that hangs on a driver's connection, from another thread."""

    @abstractmethod
    def arrays(self, inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
        """Return `inputs` as the columns of many rows, for one statement over all of them.

        Empty if the database has no arrays: the statement then runs once for each row.
        """

    @abstractmethod
    def array(self, values: Sequence[Any]) -> Any:
        """Return the parameter for the values of one column of those rows."""

    @abstractmethod
    def to_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Return the conversion of a value for the cursor, or None without conversion."""

    @abstractmethod
    def from_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Return the conversion of a value from the cursor, or None without conversion."""

    @abstractmethod
    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """Return an insert with an ON CONFLICT clause."""

    @abstractmethod
    def writing(self, connection: Connection) -> AbstractContextManager[None]:
        """Return the context of a transaction that writes."""

    @abstractmethod
    def lock(self, session: Session, space: int, name: str) -> None:
        """Take a lock, and hold it until the end of the transaction."""
