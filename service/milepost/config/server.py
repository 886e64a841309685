"""The ports of the service, and how long and how large its calls may be."""

from __future__ import annotations

from pydantic import BaseModel, Field, ValidationInfo, field_validator

from milepost.config.environment import PREFIX
from milepost.config.values import Count, Pause, Seconds, is_loopback, require_address


class ServerSettings(BaseModel):
    """Where the service listens, and what it offers there."""

    listen: str = Field("127.0.0.1:7450", description="Address of the gRPC port")
    http_listen: str = Field(
        "127.0.0.1:7451", description="Address of /healthz, /readyz and /metrics; empty for none"
    )
    reflection: bool = Field(
        default=True, description="Answer server reflection; off in production"
    )
    batching: bool = Field(default=True, description="Run concurrent calls in one transaction")

    @field_validator("listen", "http_listen")
    @classmethod
    def _address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name == "listen":
            require_address(value)
        return value

    @field_validator("listen")
    @classmethod
    def _encrypted(cls, value: str, info: ValidationInfo) -> str:
        # A file that was refused is not in the data; that is then the problem, not this.
        plaintext = info.data.get("tls_cert_file", True) is None
        if plaintext and not is_loopback(value) and info.data.get("allow_plaintext") is False:
            raise ValueError(
                f"is reachable from outside, without TLS: set {PREFIX}TLS_CERT_FILE, listen on"
                f" loopback, or set {PREFIX}ALLOW_PLAINTEXT=true behind a proxy that does TLS"
            )
        return value

    @field_validator("http_listen")
    @classmethod
    def _another_port(cls, value: str, info: ValidationInfo) -> str:
        if value and value == info.data.get("listen") and not value.endswith(":0"):
            raise ValueError(f"must differ from {PREFIX}LISTEN")
        return value


class CallSettings(BaseModel):
    """How long calls may take, when the service stops too, and how large they may be."""

    drain_seconds: Pause = Field(20.0, description="How long running calls may take after SIGTERM")
    not_ready_seconds: Pause = Field(
        0.0, description="Pause between reporting not ready and refusing calls, for balancers"
    )
    wait_seconds_max: Seconds = Field(
        60.0, description="Longest wait of WaitOperation and of GetOperation with `prefer: wait`"
    )
    keep_alive_seconds: Seconds = Field(
        20.0, description="Quiet time after which WatchOperation sends a sign of life"
    )
    request_bytes_max: Count = Field(
        2 * 1024 * 1024, description="Largest request message; larger ones are refused by gRPC"
    )
