"""The sources of settings: the variables ``MILEPOST_…`` and the file that one of them names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dotenv.parser import parse_stream

if TYPE_CHECKING:
    from collections.abc import Mapping

PREFIX: Final = "MILEPOST_"
FILE_VARIABLE: Final = f"{PREFIX}CONFIG_FILE"
CLIENT_FILES: Final = {
    "ca_file": f"{PREFIX}CA_FILE",
    "certificate_file": f"{PREFIX}CLIENT_CERT_FILE",
    "key_file": f"{PREFIX}CLIENT_KEY_FILE",
}
"""Variables of the TLS files (PEM) that the command line calls with."""
OTHERS: Final = frozenset(
    {FILE_VARIABLE, f"{PREFIX}ADDRESS", f"{PREFIX}API_KEY", *CLIENT_FILES.values()}
)
"""Variables beside the settings: the settings file, and the options of the command line."""
TESTS: Final = f"{PREFIX}TEST_"
"""The prefix of the variables of the test suite."""


def variable_of(name: str) -> str:
    """Return the variable of the setting `name`."""
    return f"{PREFIX}{name.upper()}"


def environment_values() -> dict[str, str | None]:
    """Return the variables of this process, in upper case."""
    return _upper(os.environ)


def file_values() -> dict[str, str | None]:
    """Return the variables of the settings file, in upper case; empty without a file."""
    file, _ = settings_file()
    if file is None:
        return {}
    with file.open(encoding="utf-8") as stream:
        return _upper({line.key: line.value for line in parse_stream(stream) if line.key})


def settings_file() -> tuple[Path | None, list[str]]:
    """Return the settings file, or None without a readable one, and its problems."""
    name = os.environ.get(FILE_VARIABLE)
    if not name:
        return None, []
    try:
        with Path(name).open(encoding="utf-8") as stream:
            broken = [line.original.line for line in parse_stream(stream) if line.error]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        return None, [f"{FILE_VARIABLE}: {name}: {why}"]
    return Path(name), [f"{FILE_VARIABLE}: {name}: line {n} is not KEY=VALUE" for n in broken]


def client_tls_files() -> dict[str, str]:
    """Return the TLS files that the command line is configured with, if any."""
    given = {name: os.environ.get(variable) for name, variable in CLIENT_FILES.items()}
    return {name: file for name, file in given.items() if file}


def without_settings() -> dict[str, str]:
    """Return the environment of this process without the variables of Milepost."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _upper(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.upper(): value for name, value in variables.items() if name.isascii()}
