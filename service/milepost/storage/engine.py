"""Engines and descriptions of the databases, by the names that SQLAlchemy gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from milepost.storage import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Dialect, Engine

    from milepost.storage.database import Database


def _dialect(name: str) -> Dialect:
    return sa.make_url(f"{name}://").get_dialect()()


_SQLITE: Final = "sqlite"
_DATABASES: Final[Mapping[str, Database]] = {
    "postgresql": postgresql.PostgreSql(_dialect("postgresql+psycopg")),
    _SQLITE: sqlite.Sqlite(_dialect(_SQLITE)),
}


def open_engine(url: str) -> Engine:
    """Return an engine whose connections are set up for Milepost, without connecting."""
    if sa.make_url(url).get_backend_name() == _SQLITE:
        return sqlite.open_engine(url)
    return postgresql.open_engine(url)


def database_of(engine: Engine) -> Database:
    """Return the description of the database that `engine` connects to.

    It is the same for all engines of that product, so that their stores share its statements.
    """
    return _DATABASES[engine.dialect.name]
