"""Checks of the Dockerfile and the composition that need no container engine."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments on one line."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = re.sub(r"\\\n\s*", " ", text).splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
    return [(name, arguments) for name, arguments in pairs]


def final_stage() -> dict[str, str]:
    """Return the instructions after the last FROM, the last one of each kind."""
    everything = instructions()
    start = max(i for i, (name, _) in enumerate(everything) if name == "FROM")
    return dict(everything[start:])


def compose() -> dict[str, Any]:
    """The parsed composition."""
    content: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
    return content


def test_image_runs_as_a_numbered_user_who_is_not_root():
    """The image runs as a numeric user, so that a cluster can verify that it is not root."""
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", final_stage()["USER"])


def test_image_gets_the_signal_itself():
    """The service gets SIGTERM directly, without a shell."""
    stage = final_stage()
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert json.loads(stage["ENTRYPOINT"]) == ["/opt/milepost/bin/milepost"]
    assert json.loads(stage["CMD"]) == ["serve"]


def test_image_installs_only_what_is_locked():
    """Every installation in the image is by hash, or of this tree without its dependencies."""
    installations = [
        command
        for name, arguments in instructions()
        if name == "RUN"
        for command in arguments.split("&&")
        if re.search(r"pip (install|wheel)", command)
    ]
    assert installations
    assert all("--require-hashes" in each or "--no-deps" in each for each in installations)


def test_image_copies_what_is_there():
    """Every source that the Dockerfile copies exists and is not excluded by .dockerignore."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = [line.removeprefix("!") for line in ignore if line.startswith("!")]
    for name, arguments in instructions():
        if name == "COPY" and "--from" not in arguments:
            *sources, _ = arguments.split()
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source in allowed, source


def test_images_have_versions():
    """Every image has a version other than the latest."""
    images = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]
    images += [each["image"] for each in compose()["services"].values() if "image" in each]
    assert all(re.search(r":\d", image) for image in images), images


def test_composition_refers_to_what_it_defines():
    """Every service, volume and port that the composition refers to is defined in it."""
    content = compose()
    services = content["services"]
    assert {"milepost", "postgres", "jaeger"} <= set(services)
    for each in services.values():
        assert set(each.get("depends_on", {})) <= set(services)
        assert {mount.split(":")[0] for mount in each.get("volumes", [])} <= set(content["volumes"])
    exposed = final_stage()["EXPOSE"].split()
    assert [port.split(":")[-1] for port in services["milepost"]["ports"]] == exposed


def test_composition_is_for_this_machine_only():
    """Ports are published on loopback only, and every variable has a default."""
    ports = [port for each in compose()["services"].values() for port in each.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    variables = re.findall(r"\$\{([^}]*)\}", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert all(":-" in variable for variable in variables)


@pytest.mark.parametrize("service", ["milepost", "migrate"])
def test_composition_uses_postgres(service):
    """Both the service and its migration work on the PostgreSQL of the composition."""
    url = compose()["services"][service]["environment"]["MILEPOST_DATABASE_URL"]
    assert re.fullmatch(r"postgresql\+psycopg://[^@]+@postgres:5432/milepost", url)
