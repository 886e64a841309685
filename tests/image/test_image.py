"""The image as a cluster would run it: its user, a read-only root, one writable folder."""

import http.client
import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from milepost_client import SyncMilepost
from tests.image import builder, parts
from tests.image.container import Container, Running
from tests.machine import free_ports
from tests.waiting import eventually

pytestmark = [pytest.mark.image, pytest.mark.timeout(builder.BUILD_S)]

MAX_SERVICE_MIB = 180.0
READY_S = 30.0


def status(address: str, path: str) -> int:
    """Return the status of a page of the HTTP port, or 0 if the port is closed."""
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def wait_until_ready(running: Running, address: str) -> None:
    """Wait until the service is ready; fail if its container has ended."""

    def is_ready() -> bool:
        running.assert_runs()
        return status(address, "/readyz") == http.HTTPStatus.OK

    eventually(is_ready, within=READY_S, what="the service in the image is ready")


def addresses() -> Mapping[str, str]:
    """Return settings for free ports of the loopback."""
    grpc_port, http_port = free_ports(2)
    return {"listen": f"127.0.0.1:{grpc_port}", "http_listen": f"127.0.0.1:{http_port}"}


def key(container: Container, *options: str) -> str:
    """Create an API key with the command line of the image."""
    done = container.run("keys", "create", "--subject", "alice", *options, "--quiet", **addresses())
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_service_works_in_the_image(container: Container, tmp_path: Path) -> None:
    """An operation lives its whole life over gRPC, and SIGTERM ends the container with code 0."""
    api_key = key(container, "--role", "caller", "--role", "worker", "--function", "video.*")
    settings = addresses()
    with container.running(tmp_path / "log", **settings) as running:
        wait_until_ready(running, settings["http_listen"])
        with SyncMilepost(settings["listen"], api_key=api_key) as milepost:
            operation = milepost.create("video.transcode")
            (claimed,) = milepost.claim(["video.transcode"], worker="encoder-1")
            assert claimed.id == operation.id
            milepost.complete(claimed.id, {"frames": 1200}, attempt=claimed.attempt)
            assert milepost.result(operation.id, timeout=10) == {"frames": 1200}
        assert running.stop() == 0, running.log
        assert '"event": "stopped"' in running.log or '"event":"stopped"' in running.log


def test_service_is_confined(container: Container, tmp_path: Path) -> None:
    """The first process has the user of the image, no capability, and a read-only root."""
    settings = addresses()
    with container.running(tmp_path / "log", **settings) as running:
        wait_until_ready(running, settings["http_listen"])
        process = Path("/proc", str(running.first.pid))
        facts = dict(re.findall(r"^(\w+):\s+(.*)$", (process / "status").read_text(), re.MULTILINE))
        mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
        assert set(facts["Uid"].split()) == {container.user.partition(":")[0]}
        assert facts["NSpid"].split()[-1] == "1"
        assert int(facts["CapEff"], 16) == 0
        (options,) = [fields[5] for fields in mounts if fields[4] == "/"]
        assert "ro" in options.split(",")
        assert running.stop() == 0


def test_image_serves_no_plaintext_to_others(container: Container) -> None:
    """With nothing but the settings of the image, the service asks for TLS or for the consent."""
    done = container.run("serve")
    assert done.returncode != 0
    assert "MILEPOST_ALLOW_PLAINTEXT" in done.stderr


def test_image_has_no_tools_of_its_build(root: Path) -> None:
    """The image has the service, but neither its sources nor what builds and installs it."""
    assert (root / "opt/milepost/bin/milepost").exists()
    assert not (root / "src").exists()
    assert not (root / "opt/builder").exists()
    assert not list(root.glob("opt/milepost/lib/python*/site-packages/pip"))


def test_image_has_no_settings_of_the_machine(root: Path, configuration: dict[str, object]) -> None:
    """No setting of pip on the machine that builds gets into the image or its history."""
    file = root / "etc/pip.conf"
    assert not file.exists() or file.read_text() == ""
    assert configuration["history"]
    history = json.dumps(configuration)
    assert [
        each for each in builder.pip_settings().values() if "/" in each and each in history
    ] == []


def test_parts_are_listed(root: Path) -> None:
    """The list of parts has every package of the lock that is in the image, and ours."""
    listed = {each["name"]: each["version"] for each in parts.bill_of_materials(root)["components"]}
    lock = (builder.ROOT / "requirements/run.txt").read_text(encoding="utf-8")
    locked = dict(
        re.findall(r"^([a-z0-9][a-z0-9.-]*)(?:\[.*?\])?==([^\s;]+) \\$", lock, re.MULTILINE)
    )
    assert {"grpcio", "psycopg", "sqlalchemy"} <= set(locked)
    found = {re.sub(r"[-_.]+", "-", name.lower()): version for name, version in listed.items()}
    assert locked.items() <= found.items()
    assert {"milepost", "milepost-client"} <= set(found)


def test_image_stays_small(sizes: dict[str, float]) -> None:
    """The service takes no more space in the image than it is known to need."""
    assert 0 < sizes["service_mib"] < MAX_SERVICE_MIB
    assert sizes["image_mib"] > sizes["service_mib"]
