"""Settings of the server: its addresses, and the duration and size of calls."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from milepost.config.environment import PREFIX
from milepost.config.values import Count, Pause, Seconds, is_loopback, require_address

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PROCESSES: Final = 128


class ServerSettings(BaseModel):
    """The addresses of the service and the features of its gRPC port."""

    listen: str = Field("127.0.0.1:7450", description="Address of the gRPC port")
    processes: int = Field(
        1,
        ge=1,
        le=MAX_PROCESSES,
        description="Processes that serve the gRPC port together; more than 1 need PostgreSQL",
    )
    http_listen: str = Field(
        "127.0.0.1:7451",
        description="Address of the API over HTTP, /healthz, /readyz and /metrics; empty for none",
    )
    probes_listen: str = Field(
        "", description="Address of a port of their own for /healthz, /readyz and /metrics"
    )
    http_tls: bool = Field(
        default=False, description="Encrypt the HTTP port with the certificate of the gRPC port"
    )
    http_api: bool | None = Field(
        None,
        description="Serve the API over HTTP; by default on loopback, with TLS, or if"
        " MILEPOST_ALLOW_PLAINTEXT is set; with several processes only if the probes have a port",
    )
    http_origins: str = Field(
        "",
        description="Origins of web pages that may use the API over HTTP, by commas; * for any",
    )
    http_token_in_query: bool = Field(
        default=False,
        description="Accept the credential of a watch as the query parameter access_token, because"
        " the EventSource of browsers sends no headers",
    )
    http_connections_max: Count | None = Field(
        None,
        description="Connections of callers that the HTTP port keeps; by default half of those"
        " that the limit of open files allows, and at most as many as that allows",
    )
    batch_scheduling: bool = Field(
        default=False, description="On Linux, run under the scheduling policy SCHED_BATCH"
    )
    reflection: bool = Field(
        default=True, description="Serve gRPC reflection; turn off in production"
    )
    batching: bool = Field(default=True, description="Batch concurrent calls into one transaction")

    @field_validator("processes")
    @classmethod
    def _possible(cls, value: int, info: ValidationInfo) -> int:
        database = info.data.get("database_url")
        if value > 1 and database and database.get_secret_value().startswith("sqlite"):
            raise ValueError(
                "must be 1 with the embedded store, which one process serves: several processes"
                f" need PostgreSQL in {PREFIX}DATABASE_URL"
            )
        return value

    @field_validator("listen", "http_listen", "probes_listen")
    @classmethod
    def _address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name == "listen":
            require_address(value)
        return value

    @field_validator("listen")
    @classmethod
    def _encrypted(cls, value: str, info: ValidationInfo) -> str:
        # An invalid certificate file is missing from the data; only that problem is reported then.
        plaintext = info.data.get("tls_cert_file", True) is None
        if plaintext and not is_loopback(value) and info.data.get("allow_plaintext") is False:
            raise ValueError(
                f"is reachable from other machines without TLS: set {PREFIX}TLS_CERT_FILE, listen"
                f" on loopback, or set {PREFIX}ALLOW_PLAINTEXT=true behind a proxy that ends TLS"
            )
        return value

    @field_validator("http_listen", "probes_listen")
    @classmethod
    def _another_port(cls, value: str, info: ValidationInfo) -> str:
        for other in ("listen", "http_listen"):
            if value and value == info.data.get(other) and not value.endswith(":0"):
                raise ValueError(f"must differ from {PREFIX}{other.upper()}")
        return value

    @field_validator("http_tls")
    @classmethod
    def _certificate(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001 - pydantic's
        if value and info.data.get("tls_cert_file", True) is None:
            raise ValueError(f"needs {PREFIX}TLS_CERT_FILE")
        return value

    @field_validator("http_api")
    @classmethod
    def _served(cls, value: bool | None, info: ValidationInfo) -> bool | None:  # noqa: FBT001
        if value and not info.data.get("http_listen", True):
            raise ValueError(f"needs {PREFIX}HTTP_LISTEN")
        if value and info.data.get("processes", 1) > 1 and not info.data.get("probes_listen", True):
            raise ValueError(
                f"needs {PREFIX}PROBES_LISTEN with several processes: they share the port of the"
                " API, and the probes are those of all of them"
            )
        if value and "http_listen" in info.data and not _is_private(info.data):
            raise ValueError(
                f"would be reachable from other machines without TLS: set {PREFIX}HTTP_TLS, listen"
                f" on loopback, or set {PREFIX}ALLOW_PLAINTEXT=true behind a proxy that ends TLS"
            )
        return value

    @field_validator("http_origins")
    @classmethod
    def _origins(cls, value: str) -> str:
        for origin in _separated(value):
            if origin != "*" and not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin, such as https://console.example")
        return value

    @property
    def serves_http_api(self) -> bool:
        """True if the HTTP port serves the API."""
        if self.processes > 1 and not self.probes_listen:
            return False
        if self.http_api is not None:
            return self.http_api
        has_a_port = self.processes == 1 or bool(self.probes_listen)
        return bool(self.http_listen) and has_a_port and _is_private(self.model_dump())

    @property
    def allowed_origins(self) -> frozenset[str]:
        """The origins of web pages that may use the HTTP API."""
        return frozenset(_separated(self.http_origins))


def _is_private(settings: Mapping[str, Any]) -> bool:
    """Return True if no network sees a credential that is sent to the HTTP port."""
    return bool(
        is_loopback(settings["http_listen"])
        or settings.get("http_tls")
        or settings.get("allow_plaintext")
    )


def _separated(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


_ORIGIN: Final = re.compile(r"https?://[A-Za-z0-9.\[\]:-]+")


class CallSettings(BaseModel):
    """The duration of calls, also while the service stops, and their size."""

    drain_seconds: Pause = Field(20.0, description="Time for running calls to finish after SIGTERM")
    not_ready_seconds: Pause = Field(
        0.0, description="Pause between reporting not ready and refusing calls, for load balancers"
    )
    wait_seconds_max: Seconds = Field(
        60.0, description="Longest wait of WaitOperation and of GetOperation with `prefer: wait`"
    )
    keep_alive_seconds: Seconds = Field(
        20.0, description="Idle time after which WatchOperation sends a keep-alive message"
    )
    request_bytes_max: Count = Field(
        2 * 1024 * 1024, description="Largest request message; gRPC refuses larger ones"
    )
