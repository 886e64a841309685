"""The configurations of proxies under ``deploy``, as their own programs check them."""

import pytest

from tests.e2e.service import Service
from tests.proxies import KINDS, Configuration, require


@pytest.fixture
def unstarted(tmp_path) -> list[Service]:
    """Two services that do not run."""
    return [Service(f"sqlite:///{tmp_path}/milepost.db", tmp_path) for _ in range(2)]


@pytest.mark.parametrize("name", KINDS)
def test_configuration_is_valid(name, unstarted, tmp_path):
    """The program of the proxy accepts its configuration, without a warning that is not wanted."""
    require(name)
    wanted = KINDS[name].warning
    lines = Configuration(name, unstarted, tmp_path).check().splitlines()
    said = "\n".join(line for line in lines if not wanted or wanted not in line).lower()
    assert "warn" not in said, said
    assert "alert" not in said, said
