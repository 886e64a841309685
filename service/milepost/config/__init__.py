"""Settings: environment variables ``MILEPOST_…`` and an optional file, every problem at once.

Each module holds the settings of one capability; ``settings.py`` puts them together.
"""

from milepost.config.client import ADDRESS, API_KEY, client_tls_files, client_value
from milepost.config.entries import (
    Entry,
    client_entries,
    entries,
    exposed_secrets,
    otel_entries,
    warnings,
)
from milepost.config.environment import CLIENT, OTHERS, PREFIX, TESTS, without_settings
from milepost.config.opentelemetry import OTEL
from milepost.config.redaction import redacted
from milepost.config.settings import Settings, SettingsError, load
from milepost.config.values import is_loopback, split_address

__all__ = [
    "ADDRESS",
    "API_KEY",
    "CLIENT",
    "OTEL",
    "OTHERS",
    "PREFIX",
    "TESTS",
    "Entry",
    "Settings",
    "SettingsError",
    "client_entries",
    "client_tls_files",
    "client_value",
    "entries",
    "exposed_secrets",
    "is_loopback",
    "load",
    "otel_entries",
    "redacted",
    "split_address",
    "warnings",
    "without_settings",
]
