"""The metrics of a running service, as a scraper reads them, and the queries that use them."""

import http.client
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from milepost.domain.operation import Status
from tests import monitoring
from tests.e2e.client import Client
from tests.e2e.service import MEASURED_EVERY_S, Service
from tests.waiting import eventually

SOON_S = 10.0
FROM_PROMETHEUS = {"job", "instance"}
"""Labels that the scrape adds."""
SUFFIXES = {"histogram": ("_bucket", "_sum", "_count"), "gauge": ("",), "counter": ("",)}


@pytest.fixture
def measured(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service on each database without any other function, which measures often."""
    with Service(database_url, tmp_path, measure_seconds=MEASURED_EVERY_S) as service:
        yield service


def exported(service: Service) -> set[str]:
    """Return the names of the samples that the service exports, also of those without a sample."""
    types = re.findall(r"^# TYPE (\w+) (\w+)$", service.probe("/metrics")[1], re.MULTILINE)
    return {name + suffix for name, kind in types for suffix in SUFFIXES[kind]}


def labels(service: Service) -> dict[str, set[str]]:
    """Return the labels of each metric that has samples."""
    found: dict[str, set[str]] = defaultdict(set)
    for name, pairs in re.findall(
        r"^(\w+)\{(.*)\} \S+$", service.probe("/metrics")[1], re.MULTILINE
    ):
        found[name] |= set(re.findall(r'(\w+)="', pairs))
    return found


def test_queries_name_metrics_of_the_service(any_service, alice):
    """Every metric in a query of an alert or of the dashboard is exported, with its labels."""
    alice.create_in("COMPLETED")
    names, known = exported(any_service), labels(any_service)
    queried = list(monitoring.selectors())
    assert {metric for metric, _ in queried} <= names
    for metric, wanted in queried:
        if metric in known:
            assert wanted - FROM_PROMETHEUS <= known[metric], metric


def test_names_follow_the_conventions(any_service, alice):
    """The names, units and types of the metrics follow the conventions of Prometheus."""
    alice.create_in("COMPLETED")
    page = any_service.probe("/metrics")[1]
    assert monitoring.run_promtool("check", "metrics", text=page) == ""


def test_alerts_and_dashboard_use_most_metrics(any_service):
    """Only metrics that explain a detail are in no query."""
    shown = {re.sub("_(bucket|sum|count)$", "", metric) for metric, _ in monitoring.selectors()}
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in exported(any_service)}
    assert {name for name in families - shown if name.startswith("milepost_")} == {
        "milepost_limit_buckets",
        "milepost_sweeper_passes_total",
        "milepost_transitions_total",
    }


def test_life_of_an_operation_in_the_metrics(measured, function):
    """The counters follow an operation from its create to its end, and the gauges what is active.

    What is active is measured by the database, within the interval of the measurements.
    """

    def active(status: Status) -> Any:
        return measured.metric("milepost_operations_active", function=function, status=status)

    def finished() -> Any:
        return measured.metric(
            "milepost_operations_finished_total", function=function, status="COMPLETED"
        )

    alice: Client = measured.client("alice")
    waits = measured.metric("milepost_operation_claim_wait_seconds_count")
    operation = alice.create(function=function)
    assert measured.metric("milepost_operations_created_total", function=function) == 1
    eventually(lambda: active(Status.PENDING) == 1, within=SOON_S, what="pending is measured")
    eventually(
        lambda: measured.metric(
            "milepost_operations_oldest_pending_age_seconds", function=function
        ),
        within=SOON_S,
        what="the age of the oldest is measured",
    )
    alice.transition("StartOperation", operation.id)
    eventually(lambda: active(Status.PROCESSING) == 1, within=SOON_S, what="the start is measured")
    assert measured.metric("milepost_operation_claim_wait_seconds_count") > waits
    assert finished() == 0
    alice.transition("CompleteOperation", operation.id)
    assert finished() == 1
    eventually(lambda: active(Status.PROCESSING) == 0, within=SOON_S, what="the end is measured")


def test_openmetrics_is_served_on_request(any_service):
    """A scraper that accepts OpenMetrics gets it; any other gets the older format."""
    types = []
    for accept in ("text/plain", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"):
        connection = http.client.HTTPConnection(any_service.http_address, timeout=SOON_S)
        connection.request("GET", "/metrics", headers={"Accept": accept})
        types.append(connection.getresponse().headers["Content-Type"])
        connection.close()
    assert types == [
        "text/plain; version=0.0.4; charset=utf-8",
        "application/openmetrics-text; version=1.0.0; charset=utf-8",
    ]
