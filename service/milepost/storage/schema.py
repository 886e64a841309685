"""The version of the schema: checks and migrations of a database."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from milepost.storage.engine import open_engine

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_INSTALLED: Final = Path(__file__).parents[1] / "migrations"
_CHECKOUT: Final = Path(__file__).parents[3] / "migrations"
HEAD: Final = "head"
BASE: Final = "base"


def upgrade(url: str, revision: str = HEAD) -> None:
    """Migrate the database forwards to `revision`; do nothing if it is there already.

    Replicas may call this concurrently; they run one after the other.
    """
    command.upgrade(_config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Migrate the database back to `revision`; ``base`` is the empty database."""
    command.downgrade(_config(url), revision)


def latest() -> str | None:
    """Return the revision that this code needs."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def is_usable(revision: str | None) -> bool:
    """Return whether this code can work on a database at `revision`.

    It can at the latest revision that it knows and at any newer one, because migrations keep the
    previous release working.
    """
    return revision is not None and (revision == latest() or not is_known(revision))


def is_known(revision: str) -> bool:
    """Return whether this code has the migration to `revision`."""
    scripts = ScriptDirectory.from_config(_config()).walk_revisions()
    return any(script.revision == revision for script in scripts)


def problem(engine: Engine) -> str | None:
    """Return why this code cannot work on the schema of the database, or None if it can."""
    found = current(engine)
    if is_usable(found):
        return None
    state = f"the schema is at {found}" if found else "the database has no schema"
    return f"{state}, {latest()} is needed: run milepost migrate"


def current(engine: Engine) -> str | None:
    """Return the revision of the database, or None if it was never migrated."""
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def _config(url: str | None = None) -> Config:
    config = Config()
    scripts = _INSTALLED if _INSTALLED.exists() else _CHECKOUT
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    if url is not None:
        config.attributes["engine"] = open_engine(url)
    return config
