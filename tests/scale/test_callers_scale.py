"""A minimal run of the measurement of many callers."""

import pytest

from tests.scale.callers import run

pytestmark = pytest.mark.bench


@pytest.mark.timeout(600)  # it starts PostgreSQL and two services
def test_gets_of_one_caller_and_of_many_are_measured():
    """Every get of one caller, and of many in turn, is answered and measured."""
    (_, one), (name, many) = run(callers=150, rounds=1, count=300)
    assert name == "150 callers"
    assert one > 0
    assert many > 0
