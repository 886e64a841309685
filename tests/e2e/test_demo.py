"""The demo: a temporary service, real work, a killed worker, and a complete clean-up."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from milepost_client import SyncMilepost
from tests.programs import listens

MAX_WAIT_S = 200.0
INTERRUPTED = 130


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files of several sizes, one of them empty and one in a folder below."""
    path = tmp_path / "input"
    (path / "below").mkdir(parents=True)
    (path / "a.bin").write_bytes(b"a" * 100_000)
    (path / "below" / "b ü.txt").write_text("b" * 5_000)
    (path / "empty").touch()
    return path


@pytest.fixture
def temporary(tmp_path: Path) -> Path:
    """The folder in which the demo keeps its store."""
    path = tmp_path / "tmp"
    path.mkdir()
    return path


def start(*arguments: str, temporary: Path, **settings: str) -> subprocess.Popen[str]:
    """Start the demo, with these settings and no others."""
    outside = {k: v for k, v in os.environ.items() if not k.startswith("MILEPOST_")}
    return subprocess.Popen(
        [sys.executable, "-m", "milepost", "demo", *arguments],
        env={**outside, **settings, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: str, temporary: Path, **settings: str) -> tuple[int, str, str]:
    """Run the demo to its end and return exit code, standard output and standard error."""
    with start(*arguments, temporary=temporary, **settings) as process:
        out, err = process.communicate(timeout=MAX_WAIT_S)
    assert "Traceback" not in err
    return process.returncode, out, err


def combined_digest(folder: Path) -> str:
    """Return the digest of the lines that ``sha256sum`` writes for the files."""
    names = sorted(
        os.fsencode(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()
    )
    lines = b""
    for name in names:
        content = (folder / os.fsdecode(name)).read_bytes()
        lines += hashlib.sha256(content).hexdigest().encode() + b"  " + name + b"\n"
    return hashlib.sha256(lines).hexdigest()


def test_demo_hashes_a_folder_and_leaves_nothing(folder, temporary):
    """The stored result is that of the real files; service and store are removed afterwards."""
    code, out, err = run(str(folder), "--output", "json", temporary=temporary)
    assert (code, err) == (0, "")
    operation = json.loads(out)
    assert (operation["status"], operation["progress"]) == ("COMPLETED", 1.0)
    assert (operation["owner"], operation["worker"]) == ("demo-caller", "demo-worker-2")
    assert operation["revision"] >= 5  # created, claimed, started, at least one report, completed
    result = operation["result"]
    assert (result["files"], result["bytes"], result["unreadable"]) == (3, 105_000, 0)
    assert result["sha256"] == combined_digest(folder)
    assert result["largest"][0] == {
        "path": "a.bin",
        "bytes": 100_000,
        "sha256": hashlib.sha256(b"a" * 100_000).hexdigest(),
    }
    assert "service" not in operation
    assert list(temporary.iterdir()) == []


def test_killed_worker_is_followed_by_one_that_goes_on(folder, temporary):
    """The first worker is killed in the middle, and the second one starts at its checkpoint."""
    for number in range(20):
        (folder / f"more-{number:02}").write_bytes(b"m" * 5_000)
    (folder / "z.bin").write_bytes(b"z" * 100_000)  # the middle lies behind the first files
    _, out, _ = run(str(folder), "--output", "json", temporary=temporary)
    operation = json.loads(out)
    assert (operation["status"], operation["attempt"]) == ("COMPLETED", 2)
    assert (operation["failed_attempts"], operation["checkpoint"]) == (1, None)
    assert 0 < operation["result"]["files_of_checkpoint"] < operation["result"]["files"] == 24
    assert operation["result"]["sha256"] == combined_digest(folder)
    history = [
        (event["transition"], event["attempt"], event["worker"]) for event in operation["events"]
    ]
    assert history == [
        ("create", 0, None),
        ("claim", 1, "demo-worker-1"),
        ("release", 1, "demo-worker-1"),
        ("claim", 2, "demo-worker-2"),
        ("complete", 2, "demo-worker-2"),
    ]
    assert operation["events"][2]["errors"][0]["code"] == "LEASE_LOST"


def test_demo_needs_no_arguments(temporary):
    """Without a folder, the demo hashes the files of Milepost and prints how to read the result."""
    code, out, err = run(temporary=temporary)
    assert (code, err) == (0, "")
    found = re.search(r"created (op_[0-9a-f]{24})", out)
    assert found
    assert re.search(r"revision \d+ +COMPLETED +100%", out)
    assert out.count(found[1]) >= 4  # and in the three printed ways to read it
    assert re.search(r"demo-worker-1 is killed \(kill -9\) at [5-9]\d%", out)
    assert re.search(r"release +1 +demo-worker-1 .*LEASE_LOST", out)
    for text in (
        "The history",
        "from the checkpoint",
        "The stored result",
        "grpcurl -plaintext",
        "SyncMilepost(",
        "ops get",
    ):
        assert text in out
    address = re.search(r"service +(\S+), started", out)
    assert address
    assert not listens(address[1])


def test_kept_service_can_be_called_until_ctrl_c(folder, temporary):
    """With --keep, the printed key and address read the result; Ctrl-C ends and cleans up."""
    words = (str(folder), "--keep", "--output", "json")
    with start(*words, temporary=temporary) as process:
        try:
            assert process.stdout is not None
            operation = json.loads(process.stdout.readline())
            service = operation["service"]
            with SyncMilepost(service["address"], api_key=service["api_key"]) as client:
                assert client.result(operation["id"]) == operation["result"]
        finally:
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=MAX_WAIT_S)
    assert (process.returncode, err) == (0, "")
    assert not listens(service["address"])
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_demo_leaves_nothing(temporary, tmp_path, number):
    """An interrupted demo stops its service and removes its store."""
    large = tmp_path / "large"
    large.mkdir()
    for name in range(16):  # sparse: much to hash, nothing to write
        with (large / str(name)).open("wb") as file:
            file.truncate(1 << 28)
    with start(str(large), temporary=temporary) as process:
        assert process.stdout is not None
        lines: list[str] = []
        while not lines or "PROCESSING" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], lines
        process.send_signal(number)
        _, err = process.communicate(timeout=MAX_WAIT_S)
    assert (process.returncode, err) == (INTERRUPTED, "error: interrupted\n")
    address = re.search(r"service +(\S+), started", "".join(lines))
    assert address
    assert not listens(address[1])
    assert list(temporary.iterdir()) == []


def test_demo_starts_a_service_beside_a_running_one(service, folder, temporary):
    """A running service, and variables for it, do not keep the demo from using its own."""
    variables = {"MILEPOST_ADDRESS": service.address, "MILEPOST_API_KEY": "mp_of_another_service"}
    words = (str(folder), "--output", "json")
    code, out, err = run(*words, temporary=temporary, **variables)
    assert (code, err) == (0, "")
    assert json.loads(out)["owner"] == "demo-caller"


def test_demo_uses_the_service_that_is_running(service, folder, temporary):
    """With an address and a key, the demo is a client of the running service."""
    key = service.api_key("both", roles=("CALLER", "WORKER"), functions=("demo.*",))
    words = (str(folder), "--address", service.address)
    before = service.metric("milepost_progress_updates_total", fate="committed")
    code, out, err = run(*words, "--output", "json", temporary=temporary, MILEPOST_API_KEY=key)
    assert (code, err) == (0, "")
    assert service.metric("milepost_progress_updates_total", fate="committed") > before
    operation = json.loads(out)
    assert (operation["status"], operation["owner"]) == ("COMPLETED", "both")
    assert operation["result"]["sha256"] == combined_digest(folder)

    code, out, err = run(*words, "--output", "json", temporary=temporary)
    assert (code, out) == (2, "")
    assert json.loads(err)["error"]["reason"] == "API_KEY_NEEDED"


def test_demo_without_the_role_is_refused(service, folder, temporary):
    """A key that may not create operations ends the demo with the reason."""
    key = service.api_key("idle", roles=("WORKER",), functions=("demo.*",))
    words = (str(folder), "--address", service.address, "--api-key", key)
    code, _, err = run(*words, temporary=temporary)
    assert (code, err) == (6, "error: this call needs the role CALLER\n")


def test_demo_without_a_worker_says_why(service, folder, temporary):
    """A key that may not work on the operation ends the demo with the reason of the worker."""
    key = service.api_key("idle", roles=("CALLER",))
    words = (str(folder), "--address", service.address, "--api-key", key)
    code, _, err = run(*words, temporary=temporary)
    assert (code, err) == (6, "error: this call needs the role WORKER\n")


def test_missing_folder_is_refused(tmp_path, temporary):
    """A folder that is missing, a file or empty is an invalid argument."""
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name, problem in (
        ("missing", "no such file or directory"),
        ("file", "not a directory"),
        ("empty", "the folder has no files"),
    ):
        code, out, err = run(str(tmp_path / name), temporary=temporary)
        assert (code, out, err) == (2, "", f"error: {tmp_path / name}: {problem}\n")
