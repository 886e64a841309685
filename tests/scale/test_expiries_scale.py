"""A minimal run of the measurement of expiries, and the list of all measurements."""

import pytest

from tests.scale.__main__ import measurements
from tests.scale.expiries import run
from tests.scale.figures import Figure


@pytest.mark.bench
@pytest.mark.timeout(600)  # it starts PostgreSQL and a service
def test_every_figure_of_expiries_is_measured():
    """More expiries than one batch are purged beside callers, and a day of events is dropped."""
    figures = {figure.name: figure.value for figure in run(count=3_000, seconds=2, callers=2)}
    assert figures["3,000 expiries"] > 0
    assert figures["p99 meanwhile to before"] > 0
    assert figures["3,000 events dropped with their day"] > 0


def test_measurements_are_found():
    """The table of all measurements has this one, and not the modules that they share."""
    assert "expiries" in measurements()
    assert not {"figures", "cpu", "__main__", "test_expiries_scale"} & set(measurements())


@pytest.mark.parametrize(
    ("figure", "is_missed"),
    [
        (Figure("a", 2.0, at_most=1.0), True),
        (Figure("a", 1.0, at_most=1.0), False),
        (Figure("a", 0.5, at_least=1.0), True),
        (Figure("a", 1.0, at_least=1.0), False),
        (Figure("a", 1.0), False),
    ],
)
def test_figure_outside_of_its_bound_is_missed(figure, is_missed):
    """A figure is missed above its maximum and below its minimum."""
    assert figure.is_missed is is_missed
