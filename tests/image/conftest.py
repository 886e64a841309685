"""The image, built once for all of its tests."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.image import builder, parts
from tests.image.container import Container

VARIABLE: Final = "MILEPOST_TEST_IMAGE"
"""Makes a failure of what is otherwise skipped because this machine cannot build the image."""
REPORT: Final = pytest.StashKey[dict[str, float]]()


@pytest.fixture(scope="session")
def built() -> Iterator[builder.Builder]:
    """The store with the image; skip the tests where it cannot be built."""
    obstacles = builder.obstacles()
    if obstacles:
        assert not os.environ.get(VARIABLE), obstacles
        pytest.skip(f"the Dockerfile is UNTESTED: {'; '.join(obstacles)}")
    with builder.builder() as store:
        store.build()
        yield store


@pytest.fixture(scope="session")
def configuration(built: builder.Builder) -> dict[str, Any]:
    """The configuration of the image."""
    return built.configuration()


@pytest.fixture(scope="session")
def root(built: builder.Builder) -> Path:
    """The root file system of the image."""
    return built.root()


@pytest.fixture(scope="session")
def sizes(root: Path, request: pytest.FixtureRequest) -> dict[str, float]:
    """The sizes of the image in MiB."""
    found = request.config.stash[REPORT] = parts.sizes(root)
    return found


@pytest.fixture
def container(root: Path, configuration: dict[str, Any], tmp_path: Path) -> Container:
    """A container with an empty volume."""
    volume = tmp_path / "volume"
    volume.mkdir()
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)  # the user of the container is not the one of the tests
    return Container(root, configuration, volume)


def pytest_report_header() -> str:
    """Say whether this machine can build the image."""
    obstacles = builder.obstacles()
    return f"image: {'; '.join(obstacles)}: UNTESTED" if obstacles else "image: built by buildah"


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the sizes of the image."""
    for name, value in config.stash.get(REPORT, {}).items():
        terminalreporter.write_line(f"{name}: {value}")
