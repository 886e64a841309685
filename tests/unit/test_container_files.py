"""Checks of the Dockerfile and the composition that need neither an engine nor a tool.

`make image` builds the Dockerfile, and `make check-deploy` checks what is under deploy/.
"""

import json
import re
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from milepost import config

ROOT = Path(__file__).resolve().parents[2]


REPLICAS = ("milepost-1", "milepost-2")
PINNED = re.compile(r".+:v?\d[\w.-]*@sha256:[0-9a-f]{64}")


def instructions() -> list[tuple[str, str]]:
    """Return the instructions of the Dockerfile, each with its arguments on one line."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    for name, default in re.findall(r"(?m)^ARG (\w+)=(.+)$", text):
        text = text.replace(f"${{{name}}}", default)
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
    assert final_stage()["USER"] == "10001:10001"


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


def test_images_are_pinned():
    """Every image that is not built here has a version for readers, and a digest that decides."""
    images = [arguments.split()[0] for name, arguments in instructions() if name == "FROM"]
    services = compose()["services"].values()
    images += [each["image"] for each in services if "build" not in each]
    assert len(images) > len(REPLICAS)
    assert [image for image in images if not PINNED.fullmatch(image)] == []


def test_composition_refers_to_what_it_defines():
    """Every service, volume, file and port that the composition refers to exists."""
    content = compose()
    services = content["services"]
    assert {*REPLICAS, "postgres", "valkey", "jaeger", "prometheus", "grafana"} <= set(services)
    for each in services.values():
        assert set(each.get("depends_on", {})) <= set(services)
        for source, *_ in (mount.split(":") for mount in each.get("volumes", [])):
            assert source in content["volumes"] or (ROOT / source).exists(), source


def test_balancer_listens_where_the_composition_publishes_it():
    """The port and the certificate of the balancer are those of its configuration."""
    services = compose()["services"]
    (port,) = (port.rpartition(":")[2] for port in services["balancer"]["ports"])
    text = (ROOT / "deploy/haproxy.cfg").read_text(encoding="utf-8")
    (own, file) = re.findall(r"^\s+bind :(\d+) ssl crt (\S+) ", text, re.MULTILINE)[0]
    assert own == port
    volumes = [each.split(":") for each in services["balancer"]["volumes"]]
    (folder,) = [target for source, target, *_ in volumes if source == "tls"]
    assert Path(file) == Path(folder, "tls.pem")


def test_certificate_of_the_balancer_is_for_this_machine(tmp_path):
    """The script of the composition writes a pair for localhost, which clients can trust."""
    script = ROOT / "deploy/compose/certificate.py"
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=30)
    written = (tmp_path / "tls.pem").read_text()
    subprocess.run([sys.executable, script, tmp_path], check=True, timeout=30)
    assert (tmp_path / "tls.pem").read_text() == written
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tmp_path / "tls.pem")
    trusted = ssl.create_default_context(cafile=str(tmp_path / "localhost.crt"))
    (certificate,) = trusted.get_ca_certs()
    assert ("DNS", "localhost") in certificate["subjectAltName"]
    assert (tmp_path / "localhost.crt").read_text() in written


def test_replicas_are_identical():
    """The replicas are the same, run on a read-only root, and have time to drain."""
    first, second = (compose()["services"][name] for name in REPLICAS)
    assert first == second
    assert first["read_only"]
    assert first["cap_drop"] == ["ALL"]
    settings = config.Settings.model_fields
    drain = settings["drain_seconds"].default + settings["not_ready_seconds"].default
    assert int(first["stop_grace_period"].removesuffix("s")) >= drain + 10


@pytest.mark.parametrize("name", ["haproxy.cfg", "nginx.conf"])
def test_balancers_name_the_replicas(name):
    """The configurations of the balancers name the replicas of the composition, with their port."""
    text = (ROOT / "deploy" / name).read_text(encoding="utf-8")
    assert all(f"{replica}:7450" in text for replica in REPLICAS)


def test_composition_is_for_this_machine_only():
    """Ports are published on loopback only, and every variable has a default."""
    ports = [port for each in compose()["services"].values() for port in each.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    variables = re.findall(r"\$\{([^}]*)\}", (ROOT / "compose.yaml").read_text(encoding="utf-8"))
    assert all(":-" in variable for variable in variables)


@pytest.mark.parametrize("service", [*REPLICAS, "migrate"])
def test_composition_uses_postgres(service):
    """Both the service and its migration work on the PostgreSQL of the composition."""
    url = compose()["services"][service]["environment"]["MILEPOST_DATABASE_URL"]
    assert re.fullmatch(r"postgresql\+psycopg://[^@]+@postgres:5432/milepost", url)
