"""The database as the commands use it: opened without a running service."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import sqlalchemy as sa
from alembic.util import CommandError

from milepost.domain.errors import StoreUnavailable
from milepost.main.embedded import make_folder, sqlite_path
from milepost.storage import schema
from milepost.storage.engine import open_engine
from milepost.storage.failures import failure, is_passing
from milepost.storage.requirements import unmet_requirement
from milepost.storage.translate import cause

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.engine import Engine


class DatabaseError(Exception):
    """The database cannot be used. The text has the reason, and never the password."""

    def __init__(self, message: str, *, away: bool = False) -> None:
        """Store whether the database is `away`, so that a retry may succeed."""
        self.away = away
        super().__init__(message)


def require(engine: Engine, *, allow_data_loss: bool) -> None:
    """Raise `DatabaseError` if the database does not meet a requirement of Milepost."""
    if unmet := unmet_requirement(engine, allow_data_loss=allow_data_loss):
        raise DatabaseError(f"database: {unmet}")


@contextlib.contextmanager
def usable(url: str, *, create: bool = False) -> Iterator[Engine]:
    """Open a database that has the schema of this release.

    With `create`, an embedded store is created or migrated first, as by the service.
    """
    with opened_database(url, create=create) as engine:
        problem = schema.problem(engine)
        if problem and create and url.startswith("sqlite"):
            schema.upgrade(url)
        elif problem:
            raise DatabaseError(f"database: {problem}")
        yield engine


@contextlib.contextmanager
def opened_database(url: str, *, create: bool = False) -> Iterator[Engine]:
    """Open the database; turn every failure inside of the context into a `DatabaseError`.

    Without `create`, the file of an embedded store must exist.
    """
    try:
        if url.startswith("sqlite"):
            (make_folder if create else require_file)(url)
        yield open_engine(url)
    except CommandError as error:
        raise DatabaseError(str(error)) from error
    except StoreUnavailable as error:
        raise DatabaseError("database: another process is writing to it", away=True) from error
    except ValueError as error:
        raise DatabaseError("database: its URL cannot be understood") from error
    except (sa.exc.SQLAlchemyError, OSError) as error:
        raise _failed(error) from error


def require_file(url: str) -> None:
    """Fail if the file of the embedded store does not exist. SQLite would create an empty one."""
    path = sqlite_path(url)
    if not path.exists():
        raise DatabaseError(
            f"database: the file {path} does not exist: check MILEPOST_DATABASE_URL"
            " (milepost serve or milepost keys create creates it)"
        )


def _failed(error: Exception) -> DatabaseError:
    """Return the failure for an error of the driver or of the system."""
    known, text = failure(error), cause(error)
    message = text if known is None else f"{known} ({text})"
    return DatabaseError(f"database: {message}", away=known is not None and is_passing(known))
