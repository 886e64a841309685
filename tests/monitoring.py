"""The alert rules and the dashboard under ``deploy``, their queries, and their checkers.

``MILEPOST_TEST_PROMTOOL=1`` makes the absence of promtool a failure. It is in the Debian package
``prometheus``. ``MILEPOST_TEST_GRAFANA=1`` does the same for the check of the dashboard, which
`make test` builds where Go is installed. The header of a run says whether they are there.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from tests.programs import Program

ROOT: Final = Path(__file__).resolve().parents[1]
ALERTS: Final = ROOT / "deploy/prometheus/alerts.yml"
ALERT_TESTS: Final = ROOT / "deploy/prometheus/alerts_test.yml"
SCRAPES: Final = ROOT / "deploy/prometheus/prometheus.yml"
PROVISIONING: Final = ROOT / "deploy/grafana/provisioning"
DASHBOARD: Final = ROOT / "deploy/grafana/dashboard.json"
VARIABLE: Final = "MILEPOST_TEST_PROMTOOL"
PROMTOOL_S: Final = 60
PROMTOOL: Final = Program(
    command="promtool",
    variable=VARIABLE,
    absence="promtool is not installed (apt install prometheus)",
)
SCHEMA_CHECK: Final = Program(
    command=ROOT / ".cache/grafana/check",
    variable="MILEPOST_TEST_GRAFANA",
    absence="the check of the dashboard is not built (Go is missing)",
)
_SELECTOR: Final = re.compile(r"(milepost_\w+)(?:\{(.*?)\})?")


def run_promtool(*arguments: str | Path, text: str | None = None) -> str:
    """Return the output of promtool for an input; skip the test where promtool is missing."""
    done = subprocess.run(
        [PROMTOOL.require(), *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=text,
        timeout=PROMTOOL_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def schema_errors(dashboard: dict[str, Any]) -> str:
    """Return what does not fit the schema of Grafana; skip the test where the check is missing."""
    text = json.dumps(dashboard)
    return subprocess.run(
        [SCHEMA_CHECK.require()],
        check=False,
        capture_output=True,
        text=True,
        input=text,
        timeout=PROMTOOL_S,
    ).stderr


def rules() -> list[dict[str, Any]]:
    """Return the alert rules."""
    content = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Return the dashboard."""
    content: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return content


def panels() -> list[dict[str, Any]]:
    """Return the panels of the dashboard that show data."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[str]:
    """Return every query, with the variables of the dashboard replaced by values."""
    for rule in rules():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield target["expr"].replace("$__rate_interval", "5m").replace("$function", ".*")


def selectors() -> Iterator[tuple[str, set[str]]]:
    """Return every metric of a query, with the labels that the query expects it to have."""
    for query in queries():
        grouped = {
            label for labels in re.findall(r"\bby \((.*?)\)", query) for label in labels.split(", ")
        }
        for metric, matchers in _SELECTOR.findall(query):
            yield metric, grouped | set(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
