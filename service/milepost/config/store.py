"""Settings of the store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs

from pydantic import BaseModel, Field, SecretStr, field_validator

_OPTIONS: Final = re.compile(r"(?:\s*(?:-c\s*|--)[\w.-]+=(?:\\.|[^\\\s])*(?=\s|$))*\s*")
"""Settings of the session, as in `-c search_path=milepost -c role=service`."""
_SERVER: Final = re.compile(
    r"(?:[^:@/?#]*(?::[^:@/?#]*)?@)?"  # the user and the password
    r"(?:\[[0-9A-Fa-f:.%]+\]|[\w.,-]*)(?::\d{1,5})?"
    r"(?:/[^@?#]*)?(?:\?.*)?"
)
"""The rest of a URL of PostgreSQL, after its scheme. The drivers read any other text in other ways,
and their errors would quote parts of the password."""


def _data_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "milepost"


def _default_database() -> SecretStr:
    return SecretStr(f"sqlite:///{_data_folder() / 'milepost.db'}")


def _require_options(query: str) -> None:
    if not all(map(_OPTIONS.fullmatch, parse_qs(query).get("options", []))):
        raise ValueError("may have options only as -c NAME=VALUE, with %5C before a space in one")


class StoreSettings(BaseModel):
    """The database."""

    database_url: SecretStr = Field(
        default_factory=_default_database,
        description="Database: sqlite:///PATH (embedded) or"
        " postgresql+psycopg://USER:PASSWORD@HOST/NAME (server)",
    )
    allow_data_loss: bool = Field(
        default=False,
        description="Use a PostgreSQL that may lose acknowledged changes in a crash: with fsync,"
        " full_page_writes or synchronous_commit off",
    )

    database_timeout_seconds: float = Field(
        default=0.85,
        ge=0.1,
        le=4.5,  # before the server ends the statement
        description="Time in which the database must answer a call; it gets UNAVAILABLE after it",
    )

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        scheme, _, rest = url.partition("://")
        if scheme not in {"sqlite", "postgresql+psycopg"} or not rest:
            raise ValueError("must begin with sqlite:/// or postgresql+psycopg://")
        if scheme == "sqlite" and rest.partition("?")[0].lstrip("/") in {"", ":memory:"}:
            raise ValueError("must name a file: sqlite:///milepost.db, sqlite:////var/lib/x.db")
        if scheme == "sqlite" and not rest.startswith("/"):
            raise ValueError("must have three slashes before the file: sqlite:///milepost.db")
        if scheme == "sqlite" and "?" in rest:
            raise ValueError("must end with the file: SQLite takes no options after a ?")
        if scheme != "sqlite" and not _SERVER.fullmatch(rest):
            raise ValueError(
                "must be postgresql+psycopg://USER:PASSWORD@HOST:PORT/NAME, with %40 for each @ in"
                " the password, and likewise %2F, %3A, %3F and %23 for / : ? and #"
            )
        if scheme != "sqlite":
            _require_options(rest.partition("?")[2])
        return value

    @property
    def embedded(self) -> bool:
        """True if the store is a SQLite file of this one process."""
        return self.database_url.get_secret_value().startswith("sqlite")
