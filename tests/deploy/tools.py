"""Kustomize, Helm, kubeconform and the reader of compositions, as `make check-deploy` builds them.

It needs Go. ``MILEPOST_TEST_DEPLOY=1`` makes the absence of the tools a failure.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from tests.programs import Program

ROOT: Final = Path(__file__).resolve().parents[2]
KUBERNETES: Final = ROOT / "deploy/kubernetes"
CHART: Final = ROOT / "deploy/helm/milepost"
VARIABLE: Final = "MILEPOST_TEST_DEPLOY"
TOOLS: Final = ("kustomize", "helm", "kubeconform", "compose")
RELEASES: Final = ("1.27.0", "1.37.0")
"""The oldest release of Kubernetes that the chart allows, and the newest with schemas here."""
_FOLDER: Final = ROOT / ".cache/deploy"
_RUN_S: Final = 120
_SCHEMA: Final = "{{.ResourceKind}}{{.KindSuffix}}.json"


def missing() -> list[str]:
    """Return the tools that are not built."""
    return [name for name in TOOLS if not (_FOLDER / "bin" / name).exists()]


def run(name: str, *arguments: str | Path, text: str | None = None) -> str:
    """Return the output of a tool; fail the test if the tool fails."""
    code, output = attempt(name, *arguments, text=text)
    assert code == 0, output
    return output


def attempt(name: str, *arguments: str | Path, text: str | None = None) -> tuple[int, str]:
    """Return the exit code and the output of a tool; skip the test where it is missing."""
    program = Program(
        command=_FOLDER / "bin" / name,
        variable=VARIABLE,
        absence=f"{name} is not built (make check-deploy, which needs Go)",
    )
    done = subprocess.run(
        [program.require(), *arguments],
        check=False,
        capture_output=True,
        text=True,
        input=text,
        timeout=_RUN_S,
        env={"PATH": os.environ["PATH"], "HOME": str(_FOLDER)},
    )
    return done.returncode, done.stdout + done.stderr * bool(done.returncode)


def conformity(manifests: str, release: str) -> tuple[int, str]:
    """Return the exit code and the report of kubeconform on a stream of manifests."""
    return attempt(
        "kubeconform",
        "-strict",
        "-summary",
        # A definition of the Prometheus operator, and so in no schema of Kubernetes.
        *("-skip", "ServiceMonitor"),
        *("-schema-location", f"{_schemas(release)}/{_SCHEMA}"),
        text=manifests,
    )


@cache
def _schemas(release: str) -> Path:
    """Return a folder with the schemas of a release.

    Their references lead to a server, and here into the folder.
    """
    folder = _FOLDER / "schemas" / release
    if not folder.exists():
        packages = _FOLDER.glob("venv/lib/python*/site-packages/kubernetes_validate")
        partial = Path(tempfile.mkdtemp(dir=_FOLDER))
        for package in packages:
            for path in package.glob(f"kubernetes-json-schema/v{release}-local-strict/*.json"):
                schema = json.loads(path.read_bytes().replace(b'"/api/_', b'"_'))
                schema.pop("$id", None)
                (partial / path.name).write_text(json.dumps(schema), encoding="utf-8")
        folder.parent.mkdir(exist_ok=True)
        partial.rename(folder)
    return folder


def objects(manifests: str) -> list[dict[str, Any]]:
    """Return the objects of a stream of manifests."""
    return [each for each in yaml.safe_load_all(manifests) if each]


def of_kind(manifests: list[dict[str, Any]], kind: str) -> Iterator[dict[str, Any]]:
    """Return the objects of one kind."""
    return (each for each in manifests if each["kind"] == kind)
