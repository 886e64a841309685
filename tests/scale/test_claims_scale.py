"""A minimal run of the measurement of claims."""

import pytest

from tests.scale.claims import run

pytestmark = pytest.mark.bench


@pytest.mark.timeout(600)  # it starts PostgreSQL and a service
def test_every_figure_of_claims_is_measured():
    """Claims of 100 functions, of one owner and of many workers are measured; none is refused."""
    found = run(few=500, many=3_000, claimed=1_000, workers=60, rounds=6)
    figures = {figure.name: figure.value for figure in found}
    assert all(value >= 0 for value in figures.values())
    assert figures["60 workers at once, idle: refused"] == 0
    assert figures["60 workers at once, with work: refused"] == 0
    assert figures["60 workers at once, with work: operations claimed"] == 60
