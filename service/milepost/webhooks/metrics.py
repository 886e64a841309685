"""Metrics and log lines of webhooks.

None of them holds a URL with its query, a secret, or a text of a receiver.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter, Gauge, Histogram

from milepost import telemetry
from milepost.domain.delivery import DeliveryStatus

if TYPE_CHECKING:
    from milepost.domain.delivery import ClaimedDelivery, Settlement

attempts: Final = Counter(
    "milepost_webhook_attempts_total",
    "Attempts to send a webhook, by outcome",
    ["outcome"],
    registry=telemetry.registry,
)
lag: Final = Histogram(
    "milepost_webhook_lag_seconds",
    "Time from the event to the first attempt",
    registry=telemetry.registry,
    buckets=(0.01, 0.05, 0.1, 0.5, 1, 5, 15, 60, 300, 3600),
)
exhausted: Final = Counter(
    "milepost_webhooks_exhausted_total",
    "Webhooks whose attempts all failed",
    registry=telemetry.registry,
)
running: Final = Gauge(
    "milepost_webhooks_running", "Webhooks in flight", registry=telemetry.registry
)
_OUTCOMES: Final = {
    DeliveryStatus.DELIVERED: attempts.labels("delivered"),
    DeliveryStatus.PENDING: attempts.labels("retry"),
    DeliveryStatus.STOPPED: attempts.labels("stopped"),
    DeliveryStatus.EXHAUSTED: attempts.labels("exhausted"),
    "lost": attempts.labels("lost"),
}
_EVENTS: Final = {
    DeliveryStatus.DELIVERED: (logging.INFO, "webhook delivered"),
    DeliveryStatus.PENDING: (logging.INFO, "webhook retry scheduled"),
    DeliveryStatus.STOPPED: (logging.WARNING, "webhook stopped"),
    DeliveryStatus.EXHAUSTED: (logging.WARNING, "webhook exhausted"),
}


def record_attempt(claimed: ClaimedDelivery, settlement: Settlement, *, held: bool) -> None:
    """Count an attempt, and log the status of its delivery."""
    retried = settlement.status is DeliveryStatus.PENDING
    _OUTCOMES["lost" if not held else settlement.status].inc()
    if claimed.number == 1:
        waited = (settlement.attempt.start_time - claimed.create_time).total_seconds()
        lag.observe(max(0.0, waited))
    if not held:
        telemetry.log.warning("webhook lease lost", delivery_id=claimed.id)
        return
    if settlement.status is DeliveryStatus.EXHAUSTED:
        exhausted.inc()
    level, event = _EVENTS[settlement.status]
    fields: dict[str, object] = {
        "delivery_id": claimed.id,
        "operation_id": claimed.operation_id,
        "event_type": claimed.type,
        "owner": claimed.owner,
        "host": claimed.host,
        "attempt": claimed.number,
        "tries": settlement.tries,
        "status_code": settlement.attempt.status_code,
        "error": settlement.attempt.error,
        "duration_s": settlement.attempt.duration.total_seconds(),
    }
    if retried:
        fields["delay_s"] = settlement.delay.total_seconds()
    telemetry.log.log(level, event, **fields)
