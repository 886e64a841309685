"""The standard variables of OpenTelemetry, which apply beside the settings."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIGNALS: Final = ("", "TRACES_", "METRICS_")
_OF_EXPORTER: Final = {
    "ENDPOINT": "Collector, for traces unless `MILEPOST_OTLP_ENDPOINT` is set",
    "PROTOCOL": "grpc (default) or http/protobuf",
    "HEADERS": "Headers that the collector asks for, as `name=value,…`",
    "CERTIFICATE": "Authorities (PEM) that the collector is verified with",
    "CLIENT_CERTIFICATE": "Client certificate (PEM) for the collector",
    "CLIENT_KEY": "Key of that certificate (PEM)",
    "TIMEOUT": "Seconds for one export",
    "COMPRESSION": "gzip, or nothing",
}
OTEL: Final[Mapping[str, str]] = {
    "OTEL_SDK_DISABLED": "`true` exports nothing",
    "OTEL_SERVICE_NAME": "Name of the service in traces and metrics, by default milepost",
    "OTEL_RESOURCE_ATTRIBUTES": "Attributes of every span and metric, as `name=value,…`",
    "OTEL_TRACES_EXPORTER": "otlp (default) or none",
    "OTEL_METRICS_EXPORTER": "otlp: metrics go to `MILEPOST_OTLP_ENDPOINT`, too; prometheus or"
    " none: only the page",
    "OTEL_METRIC_EXPORT_INTERVAL": "Milliseconds between exports of metrics, by default 60000",
    "OTEL_TRACES_SAMPLER": "Sampler, unless `MILEPOST_TRACE_SAMPLE_RATIO` is set",
    "OTEL_TRACES_SAMPLER_ARG": "Ratio of that sampler",
    "OTEL_BSP_SCHEDULE_DELAY": "Milliseconds that a span waits for its export, by default 250",
    "OTEL_BSP_MAX_QUEUE_SIZE": "Spans that wait for their export; further ones are lost",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "Spans of one export",
    **{
        f"OTEL_EXPORTER_OTLP_{signal}{name}": meaning
        for name, meaning in _OF_EXPORTER.items()
        for signal in _SIGNALS
    },
}
"""Variables that the service knows, with their meanings."""


def otel_problems(endpoint: str | None) -> list[str]:
    """Return one line for each of these variables that is invalid; see `otlp.problems`."""
    # The SDK takes long to import, and most commands need no settings.
    from milepost.telemetry import otlp  # noqa: PLC0415

    return otlp.problems(endpoint)


def otel_values() -> dict[str, str]:
    """Return those of the variables that are set, safe to print."""
    found = {name: os.environ[name] for name in OTEL if os.environ.get(name)}
    return {name: "***" if _may_be_secret(name, text) else text for name, text in found.items()}


def _may_be_secret(name: str, text: str) -> bool:
    """Return whether the value is, or may contain, a credential."""
    return "HEADERS" in name or "@" in text
