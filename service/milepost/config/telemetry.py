"""Settings of logs and traces."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator

from milepost.config.values import EMPTY_IS_NONE, Share


class TelemetrySettings(BaseModel):
    """The format of log lines and the export of traces."""

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level of log lines that are written"
    )
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, JSON lines elsewhere"
    )
    otlp_endpoint: Annotated[str | None, EMPTY_IS_NONE] = Field(
        None,
        description="Collector (OTLP) of telemetry, e.g. http://localhost:4317; precedes the"
        " `OTEL_` variables",
    )
    trace_sample_ratio: Share = Field(
        0.01, description="Share of new traces to record; precedes `OTEL_TRACES_SAMPLER`"
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _collector(cls, value: str | None) -> str | None:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://")
        if value and "@" in value:
            raise ValueError("must have no user and no password")
        return value
