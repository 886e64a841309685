"""A small run of the measurement of idle watches over HTTP."""

import pytest

from tests.scale.event_streams import run

pytestmark = pytest.mark.bench


@pytest.mark.timeout(180)  # it starts PostgreSQL and two servers
def test_every_watch_gets_the_end():
    """Idle watches over HTTP get keep-alives, and every one gets the end of its operation."""
    found = {figure.name: figure for figure in run(count=200, keep_alive=0.5)}
    assert found["watches that got the end"].value == 200
    assert found["memory of each"].value > 0
    assert not found["memory to that of an empty stream"].is_missed
