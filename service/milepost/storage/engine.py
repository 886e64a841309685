"""Engines and descriptions of the databases, by the names that SQLAlchemy gives them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from milepost.storage import postgresql, sqlite

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy.engine import Dialect, Engine

    from milepost.storage.database import Database

_SQLITE: Final = "sqlite"
_DATABASES: Final[Mapping[str, type[Database]]] = {
    "postgresql": postgresql.PostgreSql,
    _SQLITE: sqlite.Sqlite,
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
    return _database(type(engine.dialect))  # type: ignore[arg-type]  # mypy means its instances


@functools.cache
def _database(dialect: type[Dialect]) -> Database:
    return _DATABASES[dialect.name](dialect())
