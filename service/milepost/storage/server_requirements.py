"""Requirements on a PostgreSQL server that no session can meet by its own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa

from milepost.storage.time_limit import time_limit

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from sqlalchemy.engine import Connection, Engine

    from milepost.storage.session import Session

MIN_VERSION: Final = 15
MAX_TRIES: Final = 3
"""Attempts at meeting another client on one server process behind a pooler."""
LIMIT_S: Final = 4.0
"""Time for all attempts."""
_VERSION_UNIT: Final = 10_000
# The value at the start of the session: a session that only reads has a setting of its own.
_SERVER: Final = sa.text(
    "SELECT current_setting('server_version_num')::int, current_setting('server_encoding'),"
    " array_remove(ARRAY["
    "   CASE WHEN current_setting('fsync') = 'off' THEN 'fsync' END,"
    "   CASE WHEN current_setting('full_page_writes') = 'off' THEN 'full_page_writes' END,"
    "   CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'synchronous_commit' END"
    " ], NULL), pg_is_in_recovery(),"
    " (SELECT reset_val = 'on' FROM pg_settings WHERE name = 'default_transaction_read_only')"
)
_PID: Final = sa.text("SELECT pg_backend_pid()")


@dataclass(frozen=True, slots=True)
class Server:
    """Properties of a server and one of its databases."""

    version: int
    encoding: str
    unsafe: tuple[str, ...]
    """Settings that are off, and without which a crash may lose acknowledged changes."""
    is_standby: bool
    is_read_only: bool

    def unmet_requirement(self, *, allow_data_loss: bool = False) -> str | None:
        """Return why Milepost cannot run here, and the remedy, or None."""
        major = self.version // _VERSION_UNIT
        unmet = {
            f"the server is PostgreSQL {major}: upgrade it to {MIN_VERSION} or newer": (
                major < MIN_VERSION
            ),
            f"the encoding of the database is {self.encoding}: use a database that was created"
            " with ENCODING 'UTF8'": self.encoding != "UTF8",
            f"{' and '.join(self.unsafe)} {'are' if self.unsafe[1:] else 'is'} off, so a crash of"
            " the server may lose acknowledged changes: turn on what is off, or accept that with"
            " MILEPOST_ALLOW_DATA_LOSS": bool(self.unsafe) and not allow_data_loss,
            "the server is a read-only standby: connect to the primary server": self.is_standby,
            "default_transaction_read_only is on, so every write fails: reset it for the server,"
            " the database and the role": self.is_read_only,
        }
        return next((text for text, is_unmet in unmet.items() if is_unmet), None)


def server(session: Session) -> Server:
    """Return the server of `session`."""
    ((version, encoding, unsafe, is_standby, is_read_only),) = session.fetch(_SERVER)
    return Server(version, encoding, tuple(unsafe), is_standby, is_read_only)


def shares_connections(engine: Engine) -> bool:
    """Return whether two connections use one server process, or one of them uses several."""
    with engine.connect() as first, engine.connect() as second, _limited(first), _limited(second):
        return any(_meet(first, second) for _ in range(MAX_TRIES))


def _limited(connection: Connection) -> AbstractContextManager[None]:
    return time_limit(cast("Any", connection.connection.driver_connection), LIMIT_S)


def _meet(first: Connection, second: Connection) -> bool:
    """Return whether the connections do not have one server process each.

    A pooler gives an idle connection's process to the next one, the last used process or the one
    that has been idle for longest.
    """
    own = _process_id(first)
    first.rollback()
    others = set()
    for _ in range(2):  # of two processes in turn, one is the first connection's
        second.rollback()
        others.add(_process_id(second))
    # The transaction of the second one keeps its process, so the first one may get another.
    is_shared = len(others) > 1 or own in others or _process_id(first) != own
    first.rollback()
    second.rollback()
    return is_shared


def _process_id(connection: Connection) -> int:
    found: int = connection.execute(_PID).scalar_one()
    return found
