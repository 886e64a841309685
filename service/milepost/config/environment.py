"""The sources of settings: the variables ``MILEPOST_…`` and the file that one of them names."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from dotenv.parser import parse_stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dotenv.parser import Binding

PREFIX: Final = "MILEPOST_"
FILE_VARIABLE: Final = f"{PREFIX}CONFIG_FILE"
CLIENT: Final = {
    f"{PREFIX}ADDRESS": "Address of the service that `ops` and `webhooks` call, by default"
    " 127.0.0.1:7450",
    f"{PREFIX}API_KEY": "API key of these calls",
    f"{PREFIX}CA_FILE": "CAs (PEM) that the service is verified with, instead of those of the"
    " system",
    f"{PREFIX}CLIENT_CERT_FILE": "Client certificate (PEM) of these calls",
    f"{PREFIX}CLIENT_KEY_FILE": "Key of that certificate (PEM)",
}
"""Variables of the command line as a client, with their meanings."""
OTHERS: Final = frozenset({FILE_VARIABLE, *CLIENT})
"""Variables beside the settings of the service."""
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
        if Path(name).is_fifo():
            return None, [f"{FILE_VARIABLE}: {name}: is a pipe, which can be read only once"]
        with Path(name).open(encoding="utf-8") as stream:
            broken = [line.original.line for line in parse_stream(stream) if _is_broken(line)]
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        return None, [f"{FILE_VARIABLE}: {name}: {why}"]
    return Path(name), [f"{FILE_VARIABLE}: {name}: line {n} is not KEY=VALUE" for n in broken]


def _is_broken(line: Binding) -> bool:
    """Return whether a line is malformed, or has a variable of Milepost without a value."""
    has_no_value = line.value is None and (line.key or "").upper().startswith(PREFIX)
    return line.error or has_no_value


def without_settings() -> dict[str, str]:
    """Return the environment of this process without the variables of Milepost."""
    return {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}


def _upper(variables: Mapping[str, str | None]) -> dict[str, str | None]:
    return {name.upper(): value for name, value in variables.items() if name.isascii()}
