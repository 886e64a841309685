"""The dashboard and the alerts on a real Prometheus that scrapes a real service."""

import time
import uuid
from collections.abc import Iterator
from functools import partial

import pytest
from grpc import StatusCode

from tests import monitoring, prometheus
from tests.e2e.client import FUNCTION, Client
from tests.e2e.refusals import refused
from tests.e2e.rpcs import BROKEN
from tests.e2e.service import MEASURED_EVERY_S, Service
from tests.e2e.traces.collector import under
from tests.inbox import Inbox
from tests.otlp import GrpcReceiver
from tests.prometheus import Prometheus
from tests.waiting import eventually

DATA_WITHIN_S = 30.0
RATE_INTERVAL = "30s"
_NO_DATA = (
    "milepost_leases_lost_total",
    "milepost_background_failures_total",
    "milepost_database_refused_writes_total",
)
"""Counters of faults, which have no series before the first fault."""
DURATIONS = "milepost_rpc_duration_seconds_bucket"


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, Prometheus, str]]:
    """A service, a Prometheus that has scraped it while it was used, and the id of a trace."""
    folder = tmp_path_factory.mktemp("scraped")
    with Inbox() as inbox, GrpcReceiver() as collector:  # traces go there: only they are exemplars
        service = Service(
            f"sqlite:///{folder / 'milepost.db'}",
            folder,
            measure_seconds=MEASURED_EVERY_S,
            lease_sweep_seconds="1",
            cleanup_seconds="1",
            webhook_allow_http="true",
            webhook_allowed_networks="127.0.0.1/32",
            webhook_allowed_ports=str(inbox.port),
            webhook_schedule_seconds="0,0.1",
            lists_per_minute="1",
            otlp_endpoint=collector.url,
        )
        with service, prometheus.scraping(service.http_address, folder) as scraper:
            trace_id, _ = under(sampled := service.client("alice"))
            # The series of the first calls begin with a value: rates need a later one.
            for _ in range(2):
                use(service, sampled, inbox)
                scraped_since(scraper, time.time())
            yield service, scraper, trace_id


def use(service: Service, alice: Client, inbox: Inbox) -> None:
    """Make every part of the service count something."""
    for status in ("COMPLETED", "FAILED", "CANCELLED", "PENDING", "PROCESSING"):
        alice.create_in(status)
    running = alice.create_in("PROCESSING")
    alice.call("StreamProgress", operation_id=running.id, progress=0.5)
    alice.transition("FailOperation", running.id, errors=[BROKEN], retryable=True)
    paths = [f"/{uuid.uuid4().hex}" for _ in range(2)]
    inbox.answer(paths[1], 500, 500)  # every attempt: it is exhausted
    for path in paths:
        alice.create_in("COMPLETED", callback_url=inbox.url(path))
    inbox.wait_for(paths[0])
    inbox.wait_for(paths[1], 2)
    lister = service.client("lister")
    lister.call("ListOperations")
    with refused(StatusCode.RESOURCE_EXHAUSTED):
        lister.call("ListOperations")


def scraped_since(scraper: Prometheus, then: float) -> None:
    """Wait for a scrape that began after `then`."""
    eventually(
        lambda: scraper.values(f"timestamp(up) > {then}"), within=DATA_WITHIN_S, what="a scrape"
    )


def queries(panel):
    """Return the queries of a panel, with the variables of the dashboard replaced."""
    return [
        target["expr"].replace("$__rate_interval", RATE_INTERVAL).replace("$function", ".*")
        for target in panel["targets"]
    ]


@pytest.mark.parametrize("panel", monitoring.panels(), ids=lambda panel: panel["title"])
def test_panel_shows_data(busy, panel):
    """Each query of a panel is evaluated without an error, and has data unless it counts faults."""
    _, scraper, _ = busy
    for query in queries(panel):
        if any(metric in query for metric in _NO_DATA):
            scraper.values(query)
        else:
            eventually(partial(scraper.values, query), within=DATA_WITHIN_S, what=query)


@pytest.mark.parametrize(
    ("metric", "labels"),
    [
        ("milepost_operations_created_total", {"function": FUNCTION}),
        *(
            ("milepost_operations_finished_total", {"function": FUNCTION, "status": status})
            for status in ("COMPLETED", "FAILED", "CANCELLED")
        ),
        *(
            ("milepost_operations_active", {"function": FUNCTION, "status": status})
            for status in ("PENDING", "PROCESSING")
        ),
        ("milepost_operations_oldest_pending_age_seconds", {"function": FUNCTION}),
        ("milepost_operation_claim_wait_seconds_count", {}),
        ("milepost_operation_duration_seconds_count", {"status": "COMPLETED"}),
        ("milepost_attempts_retried_total", {"function": FUNCTION}),
        ("milepost_webhook_attempts_total", {}),
        ("milepost_webhook_lag_seconds_count", {}),
        ("milepost_webhooks_exhausted_total", {}),
        ("milepost_batcher_wait_seconds_count", {"batcher": "writes"}),
        ("milepost_sweeper_last_pass_timestamp_seconds", {"kind": "leases"}),
        ("milepost_sweeper_last_pass_timestamp_seconds", {"kind": "cleanup"}),
        ("milepost_event_loop_lag_seconds_count", {}),
        ("milepost_limited_total", {"limit": "lists"}),
    ],
    ids=str,
)
def test_use_is_measured(busy, metric, labels):
    """A service that is used in all its parts has measured it."""
    service, _, _ = busy
    eventually(lambda: service.metric(metric, **labels) > 0, within=DATA_WITHIN_S, what=metric)


def test_choices_of_the_dashboard(busy):
    """The variable `function` offers the functions that have active operations."""
    _, scraper, _ = busy
    path = "label/function/values"
    assert scraper.ask(path, **{"match[]": "milepost_operations_active"})


def test_alerts_are_evaluated_and_silent(busy):
    """The alert rules are evaluated without an error, and none of the critical ones fires."""
    _, scraper, _ = busy
    (group,) = scraper.ask("rules")["groups"]
    assert len(group["rules"]) == len(monitoring.rules())
    eventually(
        lambda: {rule["health"] for rule in scraper.ask("rules")["groups"][0]["rules"]} == {"ok"},
        within=DATA_WITHIN_S,
        what="all rules are evaluated",
    )
    firing = {
        each["labels"]["alertname"]
        for each in scraper.ask("alerts")["alerts"]
        if each["state"] == "firing"
    }
    critical = {
        rule["alert"] for rule in monitoring.rules() if rule["labels"]["severity"] == "critical"
    }
    assert not firing & critical


def test_exemplars_lead_to_traces(busy):
    """Prometheus has the trace of a sampled call beside its duration."""
    _, scraper, trace_id = busy
    now = time.time()
    found = scraper.ask("query_exemplars", query=DURATIONS, start=now - 60, end=now + 1)
    assert trace_id in {
        exemplar["labels"]["trace_id"] for series in found for exemplar in series["exemplars"]
    }
