"""A minimal run of the measurement of one and two processes."""

import pytest

from tests.scale import processes


@pytest.mark.bench
@pytest.mark.timeout(600)  # it starts a PostgreSQL and four processes
def test_one_tiny_round():
    """Both services answer every call, and every process and every scenario is in the table."""
    samples = processes.run(callers=32, seconds=0.3, rounds=1)
    assert not [each.tally.failures for each in samples if each.tally.failures]
    assert [len(each.cpu_s) for each in samples if each.scenario == "life"] == [1, 3]
    assert all(each.tally.jobs for each in samples)
    assert processes.table(samples, "tiny").row_count == len(processes.SCENARIOS)
    *capacities, failed = processes.summary(samples)
    assert len(capacities) == len(processes.SCENARIOS)
    assert all(figure.value > 0 for figure in capacities)
    assert (failed.value, failed.is_missed) == (0, False)
