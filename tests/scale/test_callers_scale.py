"""A minimal run of the measurement of many callers."""

import pytest

from tests.scale.callers import MIN_RATIO, run

pytestmark = pytest.mark.bench


@pytest.mark.timeout(600)  # it starts PostgreSQL and two services
def test_gets_of_one_caller_and_of_many_are_measured():
    """Every get of one caller, and of many in turn, is answered and measured."""
    figures = run(callers=150, rounds=1, count=300)
    assert figures[1].name == "a get by 150 callers"
    assert all(figure.value > 0 for figure in figures)
    assert figures[2].at_least == MIN_RATIO
