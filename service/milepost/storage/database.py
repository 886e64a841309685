"""What differs between the databases that Milepost runs on, as the rest of the storage sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import sqlalchemy as sa
    from sqlalchemy import ColumnElement
    from sqlalchemy.dialects import postgresql, sqlite
    from sqlalchemy.engine import Dialect
    from sqlalchemy.types import TypeEngine

    from milepost.storage.session import Session

    Convert = Callable[[Any], Any]


class Cursor(Protocol):
    """What a session needs of a driver's cursor (PEP 249)."""

    def execute(self, sql: str, parameters: Any = ..., /) -> Any:
        """Run one statement."""

    def executemany(self, sql: str, parameters: Sequence[Any], /) -> Any:
        """Run one statement that returns nothing for each set of parameters."""

    def fetchall(self) -> list[tuple[Any, ...]]:
        """Return all rows."""


class Runnable(Protocol):
    """A statement, or several that belong together, which run for many rows of input."""

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run for `rows`; return the rows that come back."""


class Database(ABC):
    """A kind of database. `postgresql.py` and `sqlite.py` have the two that there are."""

    has_one_writer: ClassVar[bool]
    """Writers exclude each other. A batch then shares one commit and one connection, and needs no
    locks; otherwise claims and sweeps have connections of their own, and wait for no other write.
    """
    writes_in_ctes: ClassVar[bool]
    """A statement may contain others that write: a change, its event and its delivery are one."""
    has_lateral_joins: ClassVar[bool]
    has_notifications: ClassVar[bool]
    """Replicas can notify each other; otherwise there is only one process."""
    max_purged: ClassVar[int | None]
    """Operations that one statement may remove; None if their payloads stay in the database."""
    begin: ClassVar[str]
    """The statement that begins a transaction that writes."""
    statement_dialect: Dialect
    """The dialect of statements that run on the cursor of a session: without named parameters."""

    def __init__(self, dialect: Dialect) -> None:
        """Describe the database of SQLAlchemy's `dialect`."""
        self.dialect = dialect

    @abstractmethod
    def session_settings(self, *, pinned_plans: bool, read_only: bool) -> Sequence[str]:
        """Return the statements that set up a connection; see `Session`."""

    @abstractmethod
    def cursor(self, connection: Any) -> Cursor:
        """Return the cursor of a driver's connection on which prepared statements run."""

    @abstractmethod
    def abort(self, connection: Any) -> None:
        """End a statement that hangs on a driver's connection, from another thread."""

    @abstractmethod
    def arrays(self, inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
        """Return `inputs` as the columns of many rows, for one statement that serves them all.

        Empty if the database has no such form: the statement then runs once for each row.
        """

    @abstractmethod
    def array(self, values: Sequence[Any]) -> Any:
        """Return the parameter that has one column of those rows."""

    @abstractmethod
    def to_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Return what makes of a value what the cursor takes; None if it takes the value."""

    @abstractmethod
    def from_driver(self, type_: TypeEngine[Any]) -> Convert | None:
        """Return what makes a value of what the cursor returns; None if it returns the value."""

    @abstractmethod
    def insert(self, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
        """Return an insert that can say what happens if the row is there already."""

    @abstractmethod
    def lock(self, session: Session, space: int, name: str) -> None:
        """Wait until no other transaction holds this lock, and hold it to the end of this one."""
