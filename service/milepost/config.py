"""Settings: environment variables ``MILEPOST_…`` and an optional file, every problem at once."""

from __future__ import annotations

import ipaddress
import os
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from milepost.domain.limits import Limits

PREFIX: Final = "MILEPOST_"
FILE_VARIABLE: Final = f"{PREFIX}CONFIG_FILE"
_DEFAULTS: Final = Limits()


def _data_folder() -> Path:
    home = os.environ.get("XDG_DATA_HOME")
    return (Path(home) if home else Path.home() / ".local" / "share") / "milepost"


def _default_database() -> SecretStr:
    return SecretStr(f"sqlite:///{_data_folder() / 'milepost.db'}")


Share = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """What an operator may choose. Each field is the variable ``MILEPOST_<NAME>``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    database_url: SecretStr = Field(
        default_factory=_default_database,
        description="Where operations live: sqlite:///PATH (embedded) or"
        " postgresql+psycopg://USER:PASSWORD@HOST/NAME (server)",
    )
    listen: str = Field("127.0.0.1:7450", description="Address of the gRPC port")
    http_listen: str = Field(
        "127.0.0.1:7451", description="Address of /healthz, /readyz and /metrics; empty for none"
    )
    allow_plaintext: bool = Field(
        default=False, description="Serve gRPC without TLS on other addresses than loopback"
    )
    reflection: bool = Field(
        default=True, description="Answer server reflection; off in production"
    )
    gathering: bool = Field(
        default=True, description="Let concurrent calls share a transaction"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="The least important log line to write"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, JSON lines elsewhere"
    )
    otlp_endpoint: str | None = Field(
        None, description="OTLP/gRPC collector for traces, e.g. http://localhost:4317"
    )
    trace_sample_ratio: Share = Field(0.01, description="Share of new traces that are recorded")
    drain_seconds: Annotated[float, Field(ge=0)] = Field(
        20.0, description="How long running calls may take after SIGTERM"
    )
    not_ready_seconds: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Pause between reporting not ready and refusing calls, for balancers"
    )
    request_bytes_max: Count = Field(
        2 * 1024 * 1024, description="Largest request message; larger ones are refused by gRPC"
    )
    ttl_default_seconds: Seconds = _DEFAULTS.ttl_default.total_seconds()
    ttl_min_seconds: Seconds = _DEFAULTS.ttl_min.total_seconds()
    ttl_max_seconds: Seconds = _DEFAULTS.ttl_max.total_seconds()
    retry_after_default_seconds: Seconds = _DEFAULTS.retry_after_default.total_seconds()
    retry_after_min_seconds: Seconds = _DEFAULTS.retry_after_min.total_seconds()
    retry_after_max_seconds: Seconds = _DEFAULTS.retry_after_max.total_seconds()
    max_attempts_default: Count = _DEFAULTS.max_attempts_default
    metadata_bytes_max: Count = _DEFAULTS.metadata_bytes
    result_bytes_max: Count = _DEFAULTS.result_bytes
    errors_bytes_max: Count = _DEFAULTS.errors_bytes
    message_length_max: Count = _DEFAULTS.message_length
    page_size_default: Count = _DEFAULTS.page_size_default
    page_size_max: Count = _DEFAULTS.page_size_max

    @field_validator("database_url")
    @classmethod
    def _known_database(cls, value: SecretStr) -> SecretStr:
        url = value.get_secret_value()
        if not url.startswith(("sqlite:///", "postgresql+psycopg://")):
            msg = "must begin with sqlite:/// or postgresql+psycopg://"
            raise ValueError(msg)
        return value

    @field_validator("listen", "http_listen")
    @classmethod
    def _address(cls, value: str) -> str:
        host, _, port = value.rpartition(":")
        if value and not (host and port.isascii() and port.isdigit() and int(port) < 65536):
            msg = "must be HOST:PORT"
            raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        problems = []
        for name in ("ttl", "retry_after"):
            least, usual, most = (
                getattr(self, f"{name}_{part}_seconds") for part in ("min", "default", "max")
            )
            if not least <= usual <= most:
                problems.append(f"{name}: min {least} <= default {usual} <= max {most} must hold")
        if self.page_size_default > self.page_size_max:
            problems.append("page_size_default must not exceed page_size_max")
        if not self.allow_plaintext and not is_loopback(self.listen):
            problems.append(
                f"listen {self.listen} is reachable from outside, without TLS: listen on"
                " loopback, or set allow_plaintext behind a proxy that does TLS"
            )
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def limits(self) -> Limits:
        """The product's limits as configured."""
        return Limits(
            ttl_default=timedelta(seconds=self.ttl_default_seconds),
            ttl_min=timedelta(seconds=self.ttl_min_seconds),
            ttl_max=timedelta(seconds=self.ttl_max_seconds),
            retry_after_default=timedelta(seconds=self.retry_after_default_seconds),
            retry_after_min=timedelta(seconds=self.retry_after_min_seconds),
            retry_after_max=timedelta(seconds=self.retry_after_max_seconds),
            max_attempts_default=self.max_attempts_default,
            metadata_bytes=self.metadata_bytes_max,
            result_bytes=self.result_bytes_max,
            errors_bytes=self.errors_bytes_max,
            message_length=self.message_length_max,
            page_size_default=self.page_size_default,
            page_size_max=self.page_size_max,
        )

    @property
    def embedded(self) -> bool:
        """Whether operations live in a SQLite file beside the one process that serves them."""
        return self.database_url.get_secret_value().startswith("sqlite")


def load(**overrides: Any) -> Settings:
    """Return the settings: `overrides` before environment before the file before defaults.

    Raises:
        ValidationError: naming every problem at once.
    """
    file = os.environ.get(FILE_VARIABLE)
    given = {name: value for name, value in overrides.items() if value is not None}
    return Settings(_env_file=file, **given)  # type: ignore[call-arg]


def problems(error: ValidationError) -> list[str]:
    """Return one line for every problem, each naming its variable."""
    return [
        f"{PREFIX}{'_'.join(map(str, item['loc'])).upper() or '…'}: "
        + item["msg"].removeprefix("Value error, ")
        for item in error.errors()
    ]


def is_loopback(address: str) -> bool:
    """Tell whether only this machine can reach `address`, a HOST:PORT."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
