"""All settings, and the loader that reports every problem at once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from milepost.config.access import AccessSettings
from milepost.config.environment import PREFIX, settings_file, variable_of
from milepost.config.opentelemetry import otel_problems
from milepost.config.operations import OperationSettings
from milepost.config.rates import RateSettings
from milepost.config.redaction import redacted
from milepost.config.server import CallSettings, ServerSettings
from milepost.config.store import StoreSettings
from milepost.config.telemetry import TelemetrySettings
from milepost.config.webhooks import WebhookSettings


class Settings(
    # In reverse: pydantic checks and lists the fields of the last ancestor first.
    WebhookSettings,
    RateSettings,
    OperationSettings,
    CallSettings,
    TelemetrySettings,
    ServerSettings,
    AccessSettings,
    StoreSettings,
    BaseSettings,
):
    """The settings of the service. Each field is the variable ``MILEPOST_<NAME>``."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file_encoding="utf-8",
        extra="ignore",
        frozen=True,
        validate_default=True,  # so that a check of one field against another always runs
        hide_input_in_errors=True,  # it may be a password
    )


class SettingsError(ValueError):
    """Invalid settings; `problems` has one line for each problem, without secrets."""

    def __init__(self, problems: list[str]) -> None:
        """Report every problem at once."""
        self.problems = problems
        super().__init__("; ".join(problems))


def load(**overrides: Any) -> Settings:
    """Return the settings. `overrides` win over the environment, the file and the defaults.

    Raises:
        SettingsError: with every problem at once.
    """
    file, problems = settings_file()
    logging.getLogger("dotenv.main").setLevel(logging.ERROR)  # its warnings are problems here
    overriding = {name: value for name, value in overrides.items() if value is not None}
    try:
        settings = Settings(_env_file=file, **overriding)  # type: ignore[call-arg]
    except ValidationError as error:
        problems += [_line(item) for item in error.errors()]
        problems += otel_problems(None)
    else:
        problems += otel_problems(settings.otlp_endpoint)
        if not problems:
            return settings
    raise SettingsError(problems)


def _line(item: Any) -> str:
    """Return one problem as a line: the variable, the reason, and the value without secrets."""
    name = str(item["loc"][0]) if item["loc"] else ""
    text = str(item["msg"]).removeprefix("Value error, ")
    value = item["input"]
    shown = repr(redacted(name, value if isinstance(value, Path) else str(value)))
    return f"{variable_of(name)}: {text} (found {shown})"
