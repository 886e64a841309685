"""Hosts that hang leave healthy ones most of their rate."""

import pytest

from tests.scale import webhooks

pytestmark = pytest.mark.faults


def test_hosts_that_hang(database_url: str):
    """20 of 200 hosts that hang leave 0.8 of the rate, 100 of them leave 0.5."""
    figures = webhooks.run(database_url)
    assert [figure.at_least for figure in figures] == [None, 0.8, 0.5]
    assert not [figure for figure in figures if figure.is_missed], figures
