"""The restore drill of docs/deploying.md: its very commands, and what callers of the copy see."""

import os
import re
import shlex
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from grpc import StatusCode

from milepost.config import PREFIX, without_settings
from milepost.webhooks.master_keys import new_key
from tests.e2e.client import Client
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.postgres_binaries import find_binaries
from tests.unit.documents import ROOT

GUIDE: Final = ROOT / "docs/deploying.md"
DRILL_S: Final = 120
FUNCTION: Final = "video.transcode"


@dataclass(frozen=True)
class Drill:
    """A database in service, and the variables of the drill on it."""

    url: str
    heading: str
    variables: dict[str, str]
    settings: dict[str, Any]


@pytest.fixture(params=["sqlite", "postgresql"])
def drill(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Drill]:
    """A drill on each database."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
        files = {name: str(tmp_path / f"{name}.db") for name in ("BACKUP", "COPY")}
        source = url.removeprefix("sqlite:///")
        yield Drill(url, "Drill on SQLite", {"SOURCE": source, **files}, {})
        return
    url, server = (request.getfixturevalue(name) for name in ("postgres_url", "postgres"))
    name = f"milepost_drill_{uuid.uuid4().hex}"
    server.create_database(name)
    places = {"SOURCE": url, "COPY": server.url(name)}
    variables = {key: value.replace("+psycopg", "") for key, value in places.items()}
    yield Drill(url, "Drill on PostgreSQL", variables, {"webhook_keys": new_key()})
    server.drop_database(name)


def commands(heading: str) -> str:
    """Return the commands below a heading of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.search(rf"^### {heading}\n.*?^```sh\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def restored(drill: Drill, folder: Path) -> dict[str, Any]:
    """Run the commands of the drill, and return the settings that they make."""
    places = [find_binaries(), Path(sys.executable).parent]
    path = os.pathsep.join([*map(str, places), os.environ["PATH"]])
    script = f"{commands(drill.heading)}\n{commands('Serve the copy')}\necho settings:\nenv -0\n"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=without_settings() | {"PATH": path} | drill.variables,
        check=False,
        capture_output=True,
        text=True,
        timeout=DRILL_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    variables = dict(
        line.split("=", 1) for line in done.stdout.split("settings:\n")[1].split("\0") if line
    )
    return {
        name.removeprefix(PREFIX).lower(): value
        for name, value in variables.items()
        if name.startswith(PREFIX)
    }


def of_copy(client: Client, copy: Service) -> Client:
    """Return the same client, with its old key, of the copy."""
    return Client(copy.channel, client.subject, client.roles, client.key)


@pytest.mark.timeout(240)  # two services and four commands, also on a busy machine
def test_restored_copy_serves(drill: Drill, tmp_path: Path) -> None:
    """A copy that the drill restores has what was backed up, and refuses later revisions."""
    with Service(drill.url, tmp_path, **drill.settings) as service:
        alice, wally = service.client("alice"), service.worker()
        pending, running = alice.create(function=FUNCTION), alice.create(function="video.cut")
        wally.transition("StartOperation", running.id)
        settings = restored(drill, tmp_path)
        newest = wally.transition("UpdateProgress", running.id, progress=0.5)
        later = alice.create(function=FUNCTION)
    url = settings.pop("database_url")
    with Service(url, tmp_path, **{**drill.settings, **settings}) as copy:
        alice, wally = of_copy(alice, copy), of_copy(wally, copy)
        with refused(StatusCode.NOT_FOUND):
            alice.get(later.id)
        with refused(StatusCode.OUT_OF_RANGE, "REVISION_AHEAD"):
            next(alice.watch(alice.channel, running.id, newest.revision))
        (claimed,) = wally.call("ClaimOperations", functions=[FUNCTION]).operations
        assert claimed.id == pending.id
        wally.transition("CompleteOperation", claimed.id, attempt=claimed.attempt)
        assert alice.get(pending.id).revision > pending.revision
        assert alice.create(function=FUNCTION).id not in {pending.id, running.id, later.id}


def test_drill_sends_no_webhooks() -> None:
    """The settings of the drill keep the copy from every receiver but one that cannot exist."""
    words = shlex.split(commands("Serve the copy"))
    assert f"{PREFIX}WEBHOOK_ALLOWED_DOMAINS=drill.invalid" in words
