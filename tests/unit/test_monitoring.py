"""The alert rules, their tests and runbooks, and the dashboard."""

import re

import pytest
import yaml

from tests import monitoring
from tests.unit.documents import OPERATING

RULES = monitoring.rules()
PANELS = monitoring.panels()


def test_alerts_fire_for_their_fault_only():
    """The tests of the rules pass: a fault fires its alert alone, a healthy service fires none."""
    monitoring.run_promtool("check", "rules", monitoring.ALERTS)
    monitoring.run_promtool("test", "rules", monitoring.ALERT_TESTS)


def test_every_alert_has_a_test():
    """Every alert fires in a test of the rules."""
    cases = yaml.safe_load(monitoring.ALERT_TESTS.read_text(encoding="utf-8"))["tests"]
    fired = re.findall(r'alertname="(\w+)"', str(cases))
    assert sorted(fired) == sorted(rule["alert"] for rule in RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook(rule):
    """An alert has a severity, a summary and a runbook: a heading with its name, and text below."""
    name = rule["alert"]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"
    text = OPERATING.read_text(encoding="utf-8")
    found = re.search(rf"^### {name}\n\n(.+?)(?=^##)", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    assert {"**Meaning.**", "**Look at.**", "**Do.**"} <= set(re.findall(r"\*\*.+?\*\*", found[1]))


def test_no_runbook_without_an_alert():
    """Every heading in the form of an alert belongs to a rule."""
    text = OPERATING.read_text(encoding="utf-8")
    headings = re.findall(r"^### (Milepost[A-Z]\w+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(rule["alert"] for rule in RULES)


def test_queries_of_the_dashboard_are_valid(tmp_path):
    """Every query of alerts and dashboard is valid PromQL."""
    queries = [
        {"record": "a:b", "labels": {"n": str(n)}, "expr": query}
        for n, query in enumerate(monitoring.queries())
    ]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": queries}]}))
    assert f"{len(queries)} rules found" in monitoring.run_promtool("check", "rules", path)


def test_dashboard_fits_the_schema_of_grafana():
    """The dashboard has the fields of Grafana's schema with their types, and no others."""
    assert monitoring.schema_errors(monitoring.dashboard()) == ""


def test_schema_of_grafana_is_checked():
    """An unknown field, also deep inside of a panel, is found."""
    broken = monitoring.dashboard()
    panel = next(each for each in broken["panels"] if each["type"] != "row")
    panel["options"]["legend"]["place"] = "bottom"
    assert "place" in monitoring.schema_errors(broken)


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_panel_is_complete(panel):
    """A panel has a title, a description, a unit, and queries to the chosen source of data."""
    assert panel["title"]
    assert panel["description"]
    assert panel["fieldConfig"]["defaults"]["unit"]
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["datasource"] == source
    assert panel["targets"]
    assert all(target["datasource"] == source for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


def test_panels_do_not_overlap():
    """The panels have ids of their own, and fill the grid of 24 columns without an overlap."""
    panels = monitoring.dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))


def test_variables_of_the_dashboard_are_defined():
    """Every variable that a query uses is defined."""
    dashboard = monitoring.dashboard()
    defined = {variable["name"] for variable in dashboard["templating"]["list"]}
    used = set(re.findall(r"\$\{?(\w+)", str(dashboard["panels"])))
    assert used <= defined | {"__rate_interval"}


def test_scrapes_are_configured():
    """The configuration of Prometheus is valid, and its job has the name that the alerts expect."""
    monitoring.run_promtool("check", "config", monitoring.SCRAPES)
    content = yaml.safe_load(monitoring.SCRAPES.read_text(encoding="utf-8"))
    assert [job["job_name"] for job in content["scrape_configs"]] == ["milepost"]


def test_sources_of_the_dashboard_are_provisioned():
    """Grafana gets a source for the dashboard, and one for the traces of its exemplars."""
    (file,) = monitoring.PROVISIONING.glob("datasources/*.yaml")
    sources = {
        each["uid"]: each
        for each in yaml.safe_load(file.read_text(encoding="utf-8"))["datasources"]
    }
    (variable,) = (
        v for v in monitoring.dashboard()["templating"]["list"] if v["type"] == "datasource"
    )
    assert variable["query"] in {each["type"] for each in sources.values()}
    (link,) = sources["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert sources[link["datasourceUid"]]["type"] == "jaeger"
