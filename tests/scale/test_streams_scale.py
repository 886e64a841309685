"""A minimal run of the measurement of progress streams."""

import pytest

from tests.scale import streams

pytestmark = pytest.mark.bench


@pytest.mark.timeout(600)  # it starts PostgreSQL and two services
def test_every_report_is_acknowledged_and_stored(monkeypatch):
    """Every report, single or in a batch, is acknowledged and committed; none is refused."""
    monkeypatch.setattr(streams, "INTERVAL_S", 2.0)
    results = streams.run([streams.SINGLE, streams.BATCHED], count=400, seconds=2.0, rounds=1)
    assert [result.faults for result in results] == [[], []]
    assert all(result.measured > 200 for result in results)
    single, batched = (result.tally for result in results)
    assert single.requests == single.reports
    assert single.responses == single.acknowledgements
    assert batched.requests < batched.reports / 2
    assert batched.responses < batched.acknowledgements / 1.5
    assert streams.table(results, 400).row_count == 2


@pytest.mark.timeout(300)  # it starts PostgreSQL and three services
def test_reports_are_compared_with_the_service_before(monkeypatch):
    """The ratio to the service of an earlier commit has a bound, if the history has that commit."""
    monkeypatch.setattr(streams, "INTERVAL_S", 2.0)
    with streams.service_before() as before:
        has_bound = before is not None
    *reports, ratio, faults = streams.figures(count=400, seconds=2.0)
    assert len(reports) == 2 + has_bound
    assert all(figure.value > 0 for figure in reports)
    assert ratio.is_missed is (has_bound and ratio.value > streams.MAX_RATIO)
    assert faults.value == 0
