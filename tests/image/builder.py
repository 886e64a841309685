"""The build of the Dockerfile by mmdebstrap and buildah, as root on Debian.

A base of Debian's packages takes the place of the official image of Python, through the argument
``PYTHON_IMAGE`` of the Dockerfile; all steps after it are those of the Dockerfile itself.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".cache/image"
PROGRAMS: Final = ("mmdebstrap", "buildah", "unshare", "chroot")
PACKAGES: Final = ("python3", "python3-venv", "ca-certificates")
BUILD_S: Final = 1800
_BASE: Final = "localhost/python:debian"
_IMAGE: Final = "localhost/milepost:test"
_SOURCES: Final = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
_POLICY: Final = {"default": [{"type": "insecureAcceptAnything"}]}
"""Only images that are built here are used."""


def obstacles() -> list[str]:
    """Return what this machine lacks to build and run the image."""
    found = [] if os.geteuid() == 0 else ["it needs root"]
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        found.append(f"{', '.join(missing)} not installed (apt install mmdebstrap buildah)")
    return found


def pip_settings() -> dict[str, str]:
    """Return the settings of pip on this machine, from its files and its environment."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    pairs = (line.split("=", 1) for line in listing.splitlines())
    return {name.rpartition(".")[2]: shlex.split(value)[0] for name, value in pairs}


class Builder:
    """A store of images of its own, in a folder that is removed afterwards."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._policy = folder / "policy.json"
        self._policy.write_text(json.dumps(_POLICY), encoding="utf-8")

    def build(self) -> str:
        """Build the Dockerfile and return the id of the image."""
        self._import_base()
        return self._build(
            *("--build-arg", f"PYTHON_IMAGE={_BASE}"),
            *self._volumes(),
            *("--tag", _IMAGE, "--file", ROOT / "Dockerfile", ROOT),
        )

    def configuration(self) -> dict[str, Any]:
        """Return the configuration of the image: user, environment, command."""
        listing = self._buildah("inspect", "--type", "image", _IMAGE)
        configuration: dict[str, Any] = json.loads(listing)["OCIv1"]
        return configuration

    def root(self) -> Path:
        """Return the root of a container of the image."""
        container = self._buildah("from", "--pull-never", _IMAGE).strip()
        return Path(self._buildah("mount", container).strip())

    def _import_base(self) -> None:
        context = self._folder / "base"
        context.mkdir()
        os.link(base_archive(), context / "base.tar")
        (context / "Dockerfile").write_text("FROM scratch\nADD base.tar /\n", encoding="utf-8")
        self._build("--tag", _BASE, context)

    def _build(self, *arguments: str | Path) -> str:
        return self._buildah(
            *("build", "--isolation", "chroot", "--pull-never", "--layers=false"),
            *("--signature-policy", self._policy, "--quiet"),
            *arguments,
        ).strip()

    def _volumes(self) -> Iterator[str]:
        """Mount the settings of pip, and the files they name, while the steps run."""
        settings = pip_settings()
        file = self._folder / "pip.conf"
        lines = [f"{name} = {value}" for name, value in settings.items()]
        file.write_text("\n".join(["[global]", *lines, ""]), encoding="utf-8")
        yield from ("--volume", f"{file}:/etc/pip.conf:ro")
        for value in settings.values():
            if value.startswith("/") and Path(value).exists():
                yield from ("--volume", f"{value}:{value}:ro")

    def _buildah(self, *arguments: str | Path) -> str:
        done = subprocess.run(
            [
                "buildah",
                *("--storage-driver", "vfs", "--root", self._folder / "images"),
                *("--runroot", self._folder / "run", *arguments),
            ],
            check=False,
            capture_output=True,
            text=True,
            timeout=BUILD_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def builder() -> Iterator[Builder]:
    """Return a builder, and remove everything it has made afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="build-", dir=CACHE))
    try:
        yield Builder(folder)
    finally:
        shutil.rmtree(folder)


def base_archive() -> Path:
    """Return a root file system with Debian's Python, made once."""
    archive = CACHE / "base.tar"
    if archive.exists():
        return archive
    sources = next((path for path in _SOURCES if path.exists()), None)
    partial = archive.with_suffix(".part.tar")
    done = subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            "--dpkgopt=path-exclude=/usr/share/doc/*",
            "--dpkgopt=path-exclude=/usr/share/man/*",
            "--dpkgopt=path-exclude=/usr/share/locale/*",
            '--customize-hook=ln -s /usr/bin/python3 "$1/usr/local/bin/python"',
            *(_codename(), partial),
            *([sources] if sources else []),
        ],
        check=False,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, done.stderr
    return partial.rename(archive)


def _codename() -> str:
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line)["VERSION_CODENAME"]
