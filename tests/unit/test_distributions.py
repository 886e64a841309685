"""The two distributions, as they are built."""

import subprocess
import sys
import tarfile
import zipfile
from email.message import Message
from email.parser import Parser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECTS = {"milepost": ROOT, "milepost_client": ROOT / "clients/python"}
LINKS = {"Repository", "Documentation", "Changelog", "Issues"}


@pytest.fixture(scope="module", params=PROJECTS)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source distribution of a project."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(folder)],
        cwd=PROJECTS[request.param],
        check=True,
        capture_output=True,
    )
    return folder


def metadata(wheel: Path) -> Message:
    """Return the metadata of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith(".dist-info/METADATA")]
        return Parser().parsestr(archive.read(name).decode())


def test_distribution_states_its_license_and_its_project(built):
    """The metadata names the license, its file, and the addresses of the project."""
    [wheel] = built.glob("*.whl")
    stated = metadata(wheel)
    assert (stated["License-Expression"], stated["License-File"]) == ("MIT", "LICENSE")
    urls = dict(url.split(", ") for url in stated.get_all("Project-URL", []))
    assert urls.keys() == LINKS
    assert all(url.startswith("https://github.com/milepost-dev/milepost") for url in urls.values())


def test_distribution_contains_its_license(built):
    """The wheel and the source distribution contain the text of the license."""
    text = (ROOT / "LICENSE").read_bytes()
    assert text.startswith(b"MIT License")
    [wheel] = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [each for each in archive.namelist() if each.endswith("/licenses/LICENSE")]
        assert archive.read(name) == text
    [source] = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        [member] = [
            each
            for each in archive.getmembers()
            if each.name.count("/") == 1 and each.name.endswith("/LICENSE")
        ]
        file = archive.extractfile(member)
        assert file is not None
        assert file.read() == text


def test_readme_names_the_license():
    """Both guides name the license and link to its text."""
    for project in PROJECTS.values():
        assert "[MIT](LICENSE)" in (project / "README.md").read_text(encoding="utf-8")
        assert (project / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
