"""The collector and the sampler, from the settings and the standard variables of OpenTelemetry."""

import pytest

from milepost import config, telemetry
from milepost.config import SettingsError
from milepost.telemetry import Sampler, otlp

OTHER = "http://other:4318"
OWN = "http://own:4317"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    """Start without the variables."""
    for name in config.OTEL:
        monkeypatch.delenv(name, raising=False)


def given(monkeypatch, **variables):
    """Set variables, whose names lack the prefix."""
    for name, value in variables.items():
        monkeypatch.setenv(f"OTEL_{name}", value)


def test_nothing_is_exported_without_an_address():
    """Without an address nothing is exported, although the specification has a default."""
    assert otlp.collector("traces", None) is None
    assert otlp.collector("metrics", "") is None


@pytest.mark.parametrize(
    ("variables", "setting", "traces", "metrics"),
    [
        ({"EXPORTER_OTLP_ENDPOINT": OTHER}, None, OTHER, OTHER),
        ({"EXPORTER_OTLP_ENDPOINT": OTHER}, OWN, OWN, OWN),
        ({"EXPORTER_OTLP_TRACES_ENDPOINT": OTHER}, None, OTHER, None),
        ({"EXPORTER_OTLP_TRACES_ENDPOINT": OTHER}, OWN, OWN, OWN),
        (
            {"EXPORTER_OTLP_ENDPOINT": OTHER, "EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            None,
            f"{OTHER}/v1/traces",
            f"{OTHER}/v1/metrics",
        ),
        ({"EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, OWN, f"{OWN}/v1/traces", f"{OWN}/v1/metrics"),
        (
            {
                "EXPORTER_OTLP_TRACES_ENDPOINT": f"{OTHER}/here",
                "EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
            },
            None,
            f"{OTHER}/here",
            None,
        ),
        ({"TRACES_EXPORTER": "none"}, OWN, None, OWN),
        ({"METRICS_EXPORTER": "prometheus"}, OWN, OWN, None),
        ({"SDK_DISABLED": "TRUE"}, OWN, None, None),
    ],
)
def test_address_of_a_signal(monkeypatch, variables, setting, traces, metrics):
    """The setting precedes the variable of the signal, and that the general one."""
    given(monkeypatch, **variables)
    found = otlp.collector("traces", setting), otlp.collector("metrics", setting)
    assert [each.endpoint if each else None for each in found] == [traces, metrics]


def test_resource_has_the_name_of_the_operator(monkeypatch):
    """The variables of the resource precede the values of the service."""
    assert otlp.resource("1.2").attributes["service.name"] == "milepost"
    given(monkeypatch, RESOURCE_ATTRIBUTES="service.name=a,host.name=b%20c", SERVICE_NAME="d")
    found = otlp.resource("1.2").attributes
    assert (found["service.name"], found["host.name"]) == ("d", "b c")
    assert found["service.version"] == "1.2"
    assert found["telemetry.sdk.language"] == "python"


@pytest.mark.parametrize(
    ("variables", "chosen", "expected"),
    [
        ({}, False, Sampler(ratio=0.01)),
        ({"TRACES_SAMPLER": "always_on"}, False, Sampler(ratio=1.0, follows_caller=False)),
        ({"TRACES_SAMPLER": "always_on"}, True, Sampler(ratio=0.01)),
        ({"TRACES_SAMPLER": "parentbased_always_off"}, False, Sampler(ratio=0.0)),
        (
            {"TRACES_SAMPLER": "parentbased_traceidratio", "TRACES_SAMPLER_ARG": "0.3"},
            False,
            Sampler(ratio=0.3),
        ),
        ({"TRACES_SAMPLER": "traceidratio"}, False, Sampler(ratio=1.0, follows_caller=False)),
    ],
)
def test_sampler(monkeypatch, variables, chosen, expected):
    """The ratio of the settings precedes the sampler of the variables."""
    given(monkeypatch, **variables)
    assert telemetry.sampler_of(0.01, is_chosen=chosen) == expected


INVALID = [
    ("EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ("EXPORTER_OTLP_ENDPOINT", "http://name:word@collector:4317"),
    ("EXPORTER_OTLP_METRICS_ENDPOINT", "http://collector:port"),
    ("EXPORTER_OTLP_PROTOCOL", "http/json"),
    ("EXPORTER_OTLP_TRACES_PROTOCOL", "GRPC"),
    ("EXPORTER_OTLP_COMPRESSION", "zstd"),
    ("EXPORTER_OTLP_TIMEOUT", "soon"),
    ("EXPORTER_OTLP_CERTIFICATE", "/does/not/exist.pem"),
    ("TRACES_EXPORTER", "jaeger"),
    ("METRICS_EXPORTER", "console"),
    ("TRACES_SAMPLER", "sometimes"),
    ("TRACES_SAMPLER_ARG", "2"),
    ("BSP_SCHEDULE_DELAY", "-250"),
    ("BSP_MAX_EXPORT_BATCH_SIZE", "5000"),
    ("RESOURCE_ATTRIBUTES", "a=b,alone"),
]


@pytest.mark.parametrize(("name", "value"), INVALID)
def test_invalid_variable_is_a_problem(monkeypatch, name, value):
    """A variable with an invalid value is one line, without the value."""
    monkeypatch.setenv("MILEPOST_OTLP_ENDPOINT", OWN)
    given(monkeypatch, **{name: value})
    with pytest.raises(SettingsError) as refused:
        config.load()
    (line,) = refused.value.problems
    assert line.startswith(f"OTEL_{name}: ")
    assert value not in line


def test_every_problem_is_reported_at_once(monkeypatch):
    """The problems of the variables stand beside those of the settings."""
    monkeypatch.setenv("MILEPOST_TRACE_SAMPLE_RATIO", "2")
    given(monkeypatch, EXPORTER_OTLP_ENDPOINT="x", EXPORTER_OTLP_PROTOCOL="y")
    with pytest.raises(SettingsError) as refused:
        config.load()
    names = [line.partition(":")[0] for line in refused.value.problems]
    assert names == [
        "MILEPOST_TRACE_SAMPLE_RATIO",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ]


def test_variables_of_other_programs_matter_only_with_an_address(monkeypatch):
    """Without an address, variables that another program may need are not checked."""
    given(monkeypatch, TRACES_EXPORTER="console", EXPORTER_OTLP_PROTOCOL="http/json")
    config.load()


def test_variables_are_shown_without_secrets(monkeypatch):
    """The variables that are set are shown; headers are masked."""
    given(monkeypatch, EXPORTER_OTLP_HEADERS="authorization=secret", SERVICE_NAME="shop")
    shown = {entry.name: entry.value for entry in config.otel_entries()}
    assert shown == {"OTEL_EXPORTER_OTLP_HEADERS": "***", "OTEL_SERVICE_NAME": "shop"}
