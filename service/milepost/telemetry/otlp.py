"""The collector that telemetry goes to, as the settings and the ``OTEL_`` variables name it.

The variables are those of the OpenTelemetry specification. Its exporters read the rest of them by
themselves: headers, certificates, timeouts and compression. Without an address nothing is exported.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from opentelemetry.sdk.resources import OTELResourceDetector, Resource

from milepost.telemetry import sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Signal: TypeAlias = Literal["traces", "metrics"]
Protocol: TypeAlias = Literal["grpc", "http/protobuf"]
_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_PROTOCOLS: Final = ("grpc", "http/protobuf")
_COMPRESSIONS: Final = {"grpc": ("gzip",), "http/protobuf": ("gzip", "deflate", "none")}
_EXPORTERS: Final = {"traces": ("otlp", "none"), "metrics": ("otlp", "prometheus", "none")}
"""The exporters of each signal; the metrics page is always there."""
_FILES: Final = ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY")
_WHOLE_NUMBERS: Final = (
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_METRIC_EXPORT_INTERVAL",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """The destination of one signal."""

    endpoint: str
    """The URL; of HTTP with the path of the signal."""
    protocol: Protocol

    @property
    def is_plaintext(self) -> bool:
        """True if the connection is not encrypted."""
        return self.endpoint.startswith("http://")


def resource(version: str) -> Resource:
    """Return the description of this process; the ``OTEL_`` variables precede its own values."""
    own = {"service.name": "milepost", "service.version": version}
    return Resource.create(own).merge(OTELResourceDetector().detect())


def collector(signal: Signal, endpoint: str | None) -> Collector | None:
    """Return the destination of a signal, or None if it is not exported.

    Args:
        signal: of the telemetry.
        endpoint: the address in the settings, which precedes those of the variables.
    """
    if _is_disabled() or "otlp" not in _exporters(signal):
        return None
    own = None if endpoint else _value(f"{_PREFIX}{signal.upper()}_ENDPOINT")
    address = own or endpoint or _value(f"{_PREFIX}ENDPOINT")
    if not address:
        return None
    protocol = _protocol(signal)
    if protocol == "http/protobuf" and not own:
        address = f"{address.rstrip('/')}/v1/{signal}"
    return Collector(endpoint=address, protocol=protocol)


def problems(endpoint: str | None) -> list[str]:
    """Return one line for each variable with an invalid value, if anything is exported.

    The values are left out, because that of a wrong variable may be a secret.
    """
    found: list[str] = []
    if _is_disabled() or not (endpoint or any(map(_value, _endpoints()))):
        return found
    for check in (_endpoint_problems, _choice_problems, _file_problems, _number_problems):
        found += check()
    return [*dict.fromkeys(found), *_resource_problems(), *sampler.problems()]


def _endpoints() -> tuple[str, ...]:
    return (f"{_PREFIX}ENDPOINT", *(f"{_PREFIX}{each}_ENDPOINT" for each in ("TRACES", "METRICS")))


def _of_signals(name: str) -> Iterator[tuple[str, Signal]]:
    """Return the variables of a name that apply to each signal, with the signal."""
    signals: tuple[Signal, ...] = ("traces", "metrics")
    for signal in signals:
        own, general = f"{_PREFIX}{signal.upper()}_{name}", f"{_PREFIX}{name}"
        yield own if _value(own) else general, signal


def _endpoint_problems() -> Iterator[str]:
    for name in _endpoints():
        text = _value(name)
        if not text:
            continue
        if not _is_address(text):
            yield f"{name}: must be a URL that begins with http:// or https://"
        elif "@" in text:
            yield f"{name}: must have no user and no password"


def _is_address(text: str) -> bool:
    try:
        url = urlsplit(text)
        return url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
    except ValueError:
        return False


def _choice_problems() -> Iterator[str]:
    for signal, known in _EXPORTERS.items():
        name = f"OTEL_{signal.upper()}_EXPORTER"
        if not set(_listed(_value(name))) <= set(known):
            yield f"{name}: must be {_either(known)}"
    for name, _ in _of_signals("PROTOCOL"):
        if _value(name) not in ("", *_PROTOCOLS):
            yield f"{name}: must be {_either(_PROTOCOLS)}"
    for name, signal in _of_signals("COMPRESSION"):
        known = _COMPRESSIONS[_protocol(signal)]
        if _value(name).lower() not in ("", *known):
            yield f"{name}: must be {_either(known)}"


def _file_problems() -> Iterator[str]:
    for kind in _FILES:
        for name, _ in _of_signals(kind):
            if path := _value(name):
                try:
                    Path(path).read_bytes()
                except OSError as error:
                    yield f"{name}: {(error.strerror or 'cannot be read').lower()}"


def _number_problems() -> Iterator[str]:
    for name, _ in _of_signals("TIMEOUT"):
        if not _is_positive(float, _value(name)):
            yield f"{name}: must be a number of seconds above 0"
    for name in _WHOLE_NUMBERS:
        if not _is_positive(int, _value(name)):
            yield f"{name}: must be a whole number above 0"
    queue = _value("OTEL_BSP_MAX_QUEUE_SIZE") or "2048"
    batch = _value("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or "512"
    if _is_positive(int, queue) and _is_positive(int, batch) and int(batch) > int(queue):
        yield "OTEL_BSP_MAX_EXPORT_BATCH_SIZE: must be at most OTEL_BSP_MAX_QUEUE_SIZE"


def _resource_problems() -> Iterator[str]:
    name = "OTEL_RESOURCE_ATTRIBUTES"
    if any("=" not in item for item in _listed(_value(name))):
        yield f"{name}: must be a list such as deployment.environment.name=production,host.name=a"


def _is_disabled() -> bool:
    return _value("OTEL_SDK_DISABLED").lower() == "true"


def _exporters(signal: Signal) -> list[str]:
    return _listed(_value(f"OTEL_{signal.upper()}_EXPORTER")) or ["otlp"]


def _protocol(signal: Signal) -> Protocol:
    found = _value(f"{_PREFIX}{signal.upper()}_PROTOCOL") or _value(f"{_PREFIX}PROTOCOL")
    return "http/protobuf" if found == "http/protobuf" else "grpc"


def _is_positive(kind: Callable[[str], float], text: str) -> bool:
    try:
        return not text or 0 < kind(text) < float("inf")
    except ValueError:
        return False


def _either(values: tuple[str, ...]) -> str:
    return " or ".join((", ".join(values[:-1]), values[-1])) if len(values) > 1 else values[0]


def _listed(text: str) -> list[str]:
    return [item for part in text.split(",") if (item := part.strip())]


def _value(name: str) -> str:
    """Return a variable; an empty one counts as unset."""
    return os.environ.get(name, "").strip()
