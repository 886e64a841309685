"""Settings: environment variables ``MILEPOST_…`` and an optional file, every problem at once.

Each module holds the settings of one capability; ``settings.py`` puts them together.
"""

from milepost.config.entries import Entry, entries, unknown_variables
from milepost.config.environment import (
    OTHERS,
    PREFIX,
    TESTS,
    client_tls_files,
    without_settings,
)
from milepost.config.redaction import redacted
from milepost.config.settings import Settings, SettingsError, load
from milepost.config.values import is_loopback, split_address

__all__ = [
    "OTHERS",
    "PREFIX",
    "TESTS",
    "Entry",
    "Settings",
    "SettingsError",
    "client_tls_files",
    "entries",
    "is_loopback",
    "load",
    "redacted",
    "split_address",
    "unknown_variables",
    "without_settings",
]
