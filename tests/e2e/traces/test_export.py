"""The export of spans as the standard variables of OpenTelemetry say."""

from tests.e2e.service import Service
from tests.e2e.traces.collector import attributes
from tests.e2e.traces.http_collector import KEY


def test_spans_are_exported_over_http_by_the_standard_variables(
    http_collector, tmp_path, monkeypatch
):
    """The standard variables choose protocol, address, headers, sampler and resource."""
    for name, value in {
        "EXPORTER_OTLP_ENDPOINT": http_collector.url,
        "EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "EXPORTER_OTLP_HEADERS": f"x-key={KEY}",
        "TRACES_SAMPLER": "always_on",
        "SERVICE_NAME": "shop-operations",
        "RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
    }.items():
        monkeypatch.setenv(f"OTEL_{name}", value)
    with Service(f"sqlite:///{tmp_path / 'milepost.db'}", tmp_path) as service:
        operation = service.client("alice").create()
        line = service.logged(operation_id=operation.id, transition="create")
        span = http_collector.spans.one(line["trace_id"], "operation create")
    assert attributes(span)["milepost.operation.id"] == operation.id
    (resource, *_) = http_collector.spans.resources
    assert "shop-operations" in resource
    assert "deployment.environment.name" in resource
