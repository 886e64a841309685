"""The list of the parts of the image (SBOM, CycloneDX), and its sizes."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from tests.image.builder import ROOT

BOM: Final = ROOT / "build/image/sbom.json"
SIZES: Final = ROOT / "build/image/sizes.json"
PREFIX: Final = Path("opt/milepost")
_PROGRAM: Final = ROOT / ".cache/deploy/venv/bin/cyclonedx-py"
_LIST_S: Final = 120


def bill_of_materials(root: Path) -> dict[str, Any]:
    """Write the list of the Python packages of the image, and return it."""
    (packages,) = root.glob(f"{PREFIX}/lib/python*/site-packages")
    BOM.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        # The program asks an interpreter for its path; that of the image is another machine's.
        interpreter = Path(folder, "python")
        path = json.dumps([str(packages)])
        interpreter.write_text(f"#!/bin/sh\ncat <<'END'\n{path}\nEND\n", encoding="utf-8")
        interpreter.chmod(0o755)
        subprocess.run(
            [
                *(_PROGRAM, "environment", "--output-reproducible", "--output-format", "JSON"),
                *("--output-file", BOM, interpreter),
            ],
            check=True,
            timeout=_LIST_S,
            env=os.environ | {"PYTHONWARNINGS": "ignore"},
            stderr=sys.stderr,
        )
    content: dict[str, Any] = json.loads(BOM.read_text(encoding="utf-8"))
    return content


def sizes(root: Path) -> dict[str, float]:
    """Write the sizes of the image and of the service in it, in MiB, and return them."""
    found = {
        "image_mib": _mib(root),
        "service_mib": _mib(root / PREFIX),
    }
    SIZES.parent.mkdir(parents=True, exist_ok=True)
    SIZES.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def _mib(folder: Path) -> float:
    files = (path.lstat() for path in folder.rglob("*") if not path.is_dir())
    unique = {status.st_ino: status.st_size for status in files}
    return round(sum(unique.values()) / 2**20, 1)
