"""A minimal run of the measurement of expiries."""

import pytest

from tests.scale.expiries import run

pytestmark = pytest.mark.bench


@pytest.mark.timeout(600)  # it starts PostgreSQL and a service
def test_every_figure_of_expiries_is_measured():
    """More expiries than one batch are purged beside callers, and a day of events is dropped."""
    figures = {figure.name: figure.value for figure in run(count=3_000, seconds=2, callers=2)}
    assert figures["3,000 expiries"] > 0
    assert figures["p99 meanwhile to before"] > 0
    assert figures["3,000 events dropped with their day"] > 0
