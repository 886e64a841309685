"""Traces, metrics and log lines.

Telemetry never changes the behaviour of the service, and no collector is required.
"""

from milepost.telemetry.audit import (
    record_change,
    record_defect,
    record_delete,
    record_event_days,
    record_failure,
    record_interruption,
    record_pass,
    record_purged_events,
    record_refusal,
    record_sweep,
    record_transition,
)
from milepost.telemetry.call_trace import (
    Trace,
    current_trace_id,
    current_traceparent,
    end_span,
    join_trace,
    recorded_call,
)
from milepost.telemetry.function_labels import MAX_FUNCTIONS
from milepost.telemetry.library_output import (
    log_errors_of_loop,
    logged_library_output,
)
from milepost.telemetry.logs import (
    configure_logs,
    finish_log,
    log,
)
from milepost.telemetry.metrics import (
    batch_waits,
    buckets,
    count_running,
    limits_lost,
    limits_shared,
    loop_lag,
    metrics_page,
    progress_streams,
    record_call,
    record_certificate,
    record_limited,
    record_overdue,
    record_refused_write,
    registry,
    update_coalesced,
    update_committed,
    update_received,
    update_refused,
)
from milepost.telemetry.operation_metrics import WorkloadGauges
from milepost.telemetry.sampler import Sampler, sampler_of
from milepost.telemetry.tracing import Tracing, configure_traces

__all__ = [
    "MAX_FUNCTIONS",
    "Sampler",
    "Trace",
    "Tracing",
    "WorkloadGauges",
    "batch_waits",
    "buckets",
    "configure_logs",
    "configure_traces",
    "count_running",
    "current_trace_id",
    "current_traceparent",
    "end_span",
    "finish_log",
    "join_trace",
    "limits_lost",
    "limits_shared",
    "log",
    "log_errors_of_loop",
    "logged_library_output",
    "loop_lag",
    "metrics_page",
    "progress_streams",
    "record_call",
    "record_certificate",
    "record_change",
    "record_defect",
    "record_delete",
    "record_event_days",
    "record_failure",
    "record_interruption",
    "record_limited",
    "record_overdue",
    "record_pass",
    "record_purged_events",
    "record_refusal",
    "record_refused_write",
    "record_sweep",
    "record_transition",
    "recorded_call",
    "registry",
    "sampler_of",
    "update_coalesced",
    "update_committed",
    "update_received",
    "update_refused",
]
