"""Settings of the server: its addresses, and the duration and size of calls."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from milepost.config.environment import PREFIX
from milepost.config.values import Count, Pause, Seconds, is_loopback, require_address

MAX_PROCESSES: Final = 128


class ServerSettings(BaseModel):
    """The addresses of the service and the features of its gRPC port."""

    listen: str = Field("127.0.0.1:7450", description="Address of the gRPC port")
    http_listen: str = Field(
        "127.0.0.1:7451", description="Address of /healthz, /readyz and /metrics; empty for none"
    )
    processes: int = Field(
        1,
        ge=1,
        le=MAX_PROCESSES,
        description="Processes that serve the gRPC port together; more than 1 need PostgreSQL",
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

    @field_validator("listen", "http_listen")
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

    @field_validator("http_listen")
    @classmethod
    def _another_port(cls, value: str, info: ValidationInfo) -> str:
        if value and value == info.data.get("listen") and not value.endswith(":0"):
            raise ValueError(f"must differ from {PREFIX}LISTEN")
        return value


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
