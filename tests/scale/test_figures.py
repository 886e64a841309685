"""The list of all measurements, and the bounds of their figures."""

import importlib

import pytest

from tests.scale.__main__ import measurements
from tests.scale.figures import Figure


def test_every_measurement_has_figures():
    """The table of all measurements has a row for each figure of each of these modules."""
    names = ["callers", "claims", "event_streams", "expiries", "processes", "streams", "webhooks"]
    assert measurements() == names
    for name in names:
        assert callable(importlib.import_module(f"tests.scale.{name}").figures)


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
