"""A small run of the measurement of idle watches over HTTP."""

import pytest

from tests.scale.event_streams import run


@pytest.mark.timeout(180)  # it starts two servers
def test_every_watch_gets_the_end(postgres_url):
    """Idle watches over HTTP get keep-alives, and every one gets the end of its operation."""
    figures = run(count=200, keep_alive=0.5, url=postgres_url)
    found = {figure.name: figure for figure in figures}
    assert found["watches that got the end"].value == 200
    assert found["memory of each"].value > 0
