"""Metrics of the service, and the page that exports them. No label identifies a caller."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics import exposition as openmetrics

from milepost.domain.transitions import Transition
from milepost.telemetry.call_trace import current_sample

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from milepost.domain.sweep import Sweep
    from milepost.telemetry.otlp import Signal

# A `_created` sample for each series would only lengthen the page.
disable_created_metrics()  # type: ignore[no-untyped-call]
registry: Final = CollectorRegistry()
rpcs: Final = Histogram(
    "milepost_rpc_duration_seconds",
    "Time from the arrival of a call to its end",
    ["method", "code"],
    registry=registry,
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)
rpcs_running: Final = Gauge("milepost_rpcs_running", "Calls in flight", registry=registry)
_running: Final[dict[str, Callable[[], int]]] = {}


def count_running(protocol: str, count: Callable[[], int]) -> None:
    """Let the gauge of calls in flight include those of a protocol."""
    _running[protocol] = count
    rpcs_running.set_function(lambda: sum(each() for each in _running.values()))


_transitions: Final = Counter(
    "milepost_transitions_total",
    "Committed transitions of operations",
    ["transition"],
    registry=registry,
)
transitions: Final = {each: _transitions.labels(each.value) for each in Transition}
"""The counter of each transition. All of them are exported from the start, with 0."""
durations: Final = Histogram(
    "milepost_operation_duration_seconds",
    "Time from the start of an operation to its end",
    ["status"],
    registry=registry,
    buckets=(0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 24 * 3600),
)
passes: Final = Counter(
    "milepost_sweeper_passes_total", "Finished passes of the sweeper", ["kind"], registry=registry
)
last_passes: Final = Gauge(
    "milepost_sweeper_last_pass_timestamp_seconds",
    "Time at which the last pass of the sweeper finished, in seconds since 1970",
    ["kind"],
    registry=registry,
)
loop_lag: Final = Histogram(
    "milepost_event_loop_lag_seconds",
    "Delay after which the event loop runs what is due, sampled four times a second",
    registry=registry,
    buckets=(0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5),
)
batch_waits: Final = Histogram(
    "milepost_batcher_wait_seconds",
    "Time for which the first call of a batch waited for the database session of its batcher",
    ["batcher"],
    registry=registry,
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
)
failures: Final = Counter(
    "milepost_background_failures_total",
    "Failed runs of periodic tasks",
    ["task"],
    registry=registry,
)
_refused_writes: Final = Counter(
    "milepost_database_refused_writes_total",
    "Writes that the database refused because it is read-only or its disk is full or failing",
    ["cause"],
    registry=registry,
)
overdue: Final = Gauge(
    "milepost_operations_overdue",
    "Operations that a sweep should have changed by now; normally 0",
    ["sweep"],
    registry=registry,
)
leases_spared: Final = Gauge(
    "milepost_leases_spared",
    "Expired leases that are not ended yet, because they could not be renewed for a while",
    registry=registry,
)
progress_streams: Final = Gauge(
    "milepost_progress_streams", "Open progress streams", registry=registry
)
_progress_updates: Final = Counter(
    "milepost_progress_updates_total",
    "Updates on progress streams: received, and of these coalesced with a newer one, committed or"
    " refused",
    ["fate"],
    registry=registry,
)
refusals: Final = Counter(
    "milepost_limited_total", "Calls refused by a limit", ["limit"], registry=registry
)
buckets: Final = Gauge(
    "milepost_limit_buckets", "Token buckets in the memory of this replica", registry=registry
)
limits_shared: Final = Gauge(
    "milepost_limits_shared", "1 while all replicas share their limits, else 0", registry=registry
)
limits_lost: Final = Counter(
    "milepost_limits_lost_total",
    "Losses of the shared limits, after which limits are local",
    registry=registry,
)
_certificate_expiry: Final = Gauge(
    "milepost_tls_certificate_expiry_timestamp_seconds",
    "Time at which the certificate in use expires, in seconds since 1970",
    ["certificate"],
    registry=registry,
)
_files_unusable: Final = Gauge(
    "milepost_tls_files_unusable",
    "1 while the TLS files hold no pair that can be used, and the last good one serves, else 0",
    registry=registry,
)
lines_lost: Final = Counter(
    "milepost_log_lines_lost_total",
    "Log lines that were dropped because the reader did not keep up",
    registry=registry,
)
_failed_exports: Final = Counter(
    "milepost_telemetry_exports_failed_total",
    "Exports of spans or metrics that the collector did not take",
    ["signal"],
    registry=registry,
)
_dropped_spans: Final = Counter(
    "milepost_telemetry_spans_dropped_total",
    "Spans that were dropped because too many waited for their export",
    registry=registry,
)
_exports_failed: Final = {each: _failed_exports.labels(each) for each in ("traces", "metrics")}
"""The counter of each signal. Both are exported from the start, with 0."""

update_received: Final = _progress_updates.labels("received").inc
update_coalesced: Final = _progress_updates.labels("coalesced").inc
update_committed: Final = _progress_updates.labels("committed").inc
update_refused: Final = _progress_updates.labels("refused").inc
record_dropped_span: Final = _dropped_spans.inc


def record_failed_export(signal: Signal) -> None:
    """Count an export that failed after all its retries."""
    _exports_failed[signal].inc()


def record_call(method: str, code: str, seconds: float) -> None:
    """Count one call and its duration under its final status code.

    The duration of a sampled call has its trace as the exemplar.
    """
    _rpcs(method, code).observe(seconds, current_sample())


@functools.cache
def _rpcs(method: str, code: str) -> Histogram:
    """Return the durations of a method with that code, without the lock and copies of `labels`."""
    return rpcs.labels(method, code)


def record_limited(limit: str) -> None:
    """Count a call that a limit refused; `limit` is the name of the limit, never a principal."""
    refusals.labels(limit).inc()


def record_refused_write(cause: str) -> None:
    """Count a write that the database refused for a cause of its own."""
    _refused_writes.labels(cause).inc()


def record_certificate(*, expire_time: datetime, is_usable: bool) -> None:
    """Set when the certificate in use expires, and whether its files can be used."""
    _certificate_expiry.labels("server").set(expire_time.timestamp())
    _files_unusable.set(not is_usable)


def record_overdue(counts: Mapping[Sweep, int], *, spared: int) -> None:
    """Set the number of operations for which each sweep is overdue, and of spared leases."""
    leases_spared.set(spared)
    for sweep, count in counts.items():
        overdue.labels(sweep.name).set(count)


def metrics_page(accept: str = "") -> tuple[bytes, str]:
    """Return all metrics and their content type.

    The format is that of Prometheus, or OpenMetrics, which has exemplars, if `accept` names it.
    """
    if "application/openmetrics-text" in accept:
        page: bytes = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
        return page, openmetrics.CONTENT_TYPE_LATEST
    return generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
