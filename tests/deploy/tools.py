"""Kustomize, Helm, kubeconform and the reader of compositions, as `make check-deploy` builds them.

It needs Go. ``MILEPOST_TEST_DEPLOY=1`` makes the absence of the tools a failure.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).resolve().parents[2]
KUBERNETES: Final = ROOT / "deploy/kubernetes"
CHART: Final = ROOT / "deploy/helm/milepost"
VARIABLE: Final = "MILEPOST_TEST_DEPLOY"
KUBERNETES_VERSION: Final = "1.34.0"
"""The release whose schemas the manifests are checked against."""
_FOLDER: Final = ROOT / ".cache/deploy"
_RUN_S: Final = 120
_SCHEMA: Final = "{{.ResourceKind}}{{.KindSuffix}}.json"


def run(name: str, *arguments: str | Path, text: str | None = None) -> str:
    """Return the output of a tool; fail the test if the tool fails."""
    code, output = attempt(name, *arguments, text=text)
    assert code == 0, output
    return output


def attempt(name: str, *arguments: str | Path, text: str | None = None) -> tuple[int, str]:
    """Return the exit code and the output of a tool; skip the test where it is missing."""
    program = _FOLDER / "bin" / name
    if not program.exists():
        assert not os.environ.get(VARIABLE), f"{name} is not built: make check-deploy"
        pytest.skip(f"{name} is not built (make check-deploy, which needs Go): this is UNTESTED")
    done = subprocess.run(
        [program, *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=text,
        timeout=_RUN_S,
        env={"PATH": os.environ["PATH"], "HOME": str(_FOLDER)},
    )
    return done.returncode, done.stdout + done.stderr * bool(done.returncode)


def conformity(manifests: str) -> tuple[int, str]:
    """Return the exit code and the report of kubeconform on a stream of manifests."""
    (schemas,) = _FOLDER.glob(
        "venv/lib/python*/site-packages/kubernetes_validate/kubernetes-json-schema/"
        f"v{KUBERNETES_VERSION}-local-strict"
    ) or [Path("missing")]
    return attempt(
        "kubeconform",
        "-strict",
        "-summary",
        # A definition of the Prometheus operator, and so in no schema of Kubernetes.
        *("-skip", "ServiceMonitor"),
        *("-schema-location", f"{schemas}/{_SCHEMA}"),
        text=manifests,
    )


def objects(manifests: str) -> list[dict[str, Any]]:
    """Return the objects of a stream of manifests."""
    return [each for each in yaml.safe_load_all(manifests) if each]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """Return the objects of one kind."""
    return (each for each in manifests if each["kind"] == kind)
