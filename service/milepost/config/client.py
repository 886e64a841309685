"""Settings of the command line as a client: the address, the key and the TLS files."""

from __future__ import annotations

from typing import Final

from milepost.config.environment import PREFIX, environment_values, file_values, settings_file
from milepost.config.settings import SettingsError

ADDRESS: Final = f"{PREFIX}ADDRESS"
API_KEY: Final = f"{PREFIX}API_KEY"
_TLS_FILES: Final = {
    "ca_file": f"{PREFIX}CA_FILE",
    "certificate_file": f"{PREFIX}CLIENT_CERT_FILE",
    "key_file": f"{PREFIX}CLIENT_KEY_FILE",
}
"""Variables of the TLS files, by the parameters of the client."""


def client_value(variable: str) -> str | None:
    """Return a variable of the environment, else of the settings file; None if it is empty.

    Raises:
        SettingsError: The settings file cannot be read.
    """
    given = environment_values().get(variable)
    if given:
        return given
    _, problems = settings_file()
    if problems:
        raise SettingsError(problems)
    return file_values().get(variable) or None


def client_tls_files() -> dict[str, str]:
    """Return the TLS files that the command line is configured with, if any."""
    given = {name: client_value(variable) for name, variable in _TLS_FILES.items()}
    return {name: file for name, file in given.items() if file}
