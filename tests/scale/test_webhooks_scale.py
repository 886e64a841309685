"""A minimal run of the measurement of webhooks."""

import pytest

from tests.scale import webhooks

pytestmark = pytest.mark.bench


@pytest.mark.timeout(180)  # it fills three outboxes of 200 hosts
def test_rates_beside_hosts_that_hang_are_measured(database_url):
    """Webhooks are sent, and the rates beside hosts that hang are compared with that without."""
    found = webhooks.run(database_url, backlog=50, settle_s=0.5, seconds=3.0)
    assert all(figure.value > 0 for figure in found)
    assert [figure.at_least for figure in found] == [None, *webhooks.KEPT.values()]
