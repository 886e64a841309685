"""The Python programs of the documents run as documented, on a service of their own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from milepost.cli.temporary_service import temporary_service
from milepost.domain.operation import Role
from milepost.main.api_keys import create_key
from milepost_client import SyncMilepost
from tests.unit.documents import README, RETRIES, blocks

TIMEOUT_S = 120


@dataclass(frozen=True)
class Programs:
    """The programs of the documents, the address of their service, and their environment."""

    address: str
    environment: dict[str, str]
    folder: Path

    def command(self, name: str, *arguments: str) -> list[str]:
        """Return the command line of a program, which is written to the folder."""
        [found] = [
            block
            for path in (README, RETRIES)
            for block in blocks(path, "python")
            if block.startswith(f"# {name}\n")
        ]
        script = self.folder / name
        script.write_text(found.replace("127.0.0.1:7450", self.address), encoding="utf-8")
        return [sys.executable, str(script), *arguments]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """The programs, with the keys of a caller and a worker."""
    with temporary_service() as service:
        service.wait_until_listening()
        url = service.database_url
        caller = create_key(url, subject="alice", roles=[Role.CALLER], functions=[])[1]
        worker = create_key(url, subject="enc", roles=[Role.WORKER], functions=["video.*"])[1]
        environment = {**os.environ, "MILEPOST_API_KEY": caller, "WORKER_KEY": worker}
        yield Programs(service.address, environment, tmp_path_factory.mktemp("programs"))


def test_caller_gets_the_result_of_the_worker(programs):
    """The caller of the README waits, and prints the result of the worker of the README."""
    with subprocess.Popen(
        programs.command("caller.py"),
        env=programs.environment,
        stdout=subprocess.PIPE,
        text=True,
    ) as waiting:
        assert waiting.stdout is not None
        operation_id, status = waiting.stdout.readline().split()
        assert status == "PENDING"
        work = programs.command("worker.py", operation_id)
        subprocess.run(work, env=programs.environment, check=True, timeout=TIMEOUT_S)
        assert waiting.communicate(timeout=TIMEOUT_S)[0] == "{'frames': 1200}\n"
    assert waiting.returncode == 0


def test_worker_that_claims_runs(programs):
    """The worker of the README that claims operations does the work, and stops on SIGTERM."""
    with subprocess.Popen(programs.command("crew.py"), env=programs.environment) as crew:
        called = subprocess.run(
            programs.command("caller.py"),
            env=programs.environment,
            check=True,
            timeout=TIMEOUT_S,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert called.stdout.splitlines()[1] == "{'frames': 1200}"
        crew.terminate()
    assert crew.returncode == 0


def test_worker_that_fails_twice_goes_on_from_its_checkpoint(programs):
    """The worker of the page about retries fails twice, resumes, and completes the operation."""
    key = programs.environment["MILEPOST_API_KEY"]
    with (
        subprocess.Popen(programs.command("resuming.py"), env=programs.environment) as worker,
        SyncMilepost(programs.address, api_key=key) as milepost,
    ):
        operation = milepost.create("video.transcode", max_attempts=4, initial_backoff=0.1)
        assert milepost.result(operation.id, timeout=TIMEOUT_S) == {"frames": 1200}
        events = list(milepost.events(operation.id))
        worker.terminate()
    assert [event.transition for event in events] == [
        *("create", "claim", "retry", "claim", "retry", "claim", "complete")
    ]
    errors = [error.message for event in events for error in event.errors]
    assert errors == ["the disk is full"] * 2
    assert events[-1].attempt == 3
    assert worker.returncode == 0
