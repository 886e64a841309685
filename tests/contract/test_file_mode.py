"""The file of the embedded store is readable for its user alone."""

import os
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa

from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade


@pytest.fixture
def usual_umask():
    """The umask of most systems."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("usual_umask")
def test_new_file_is_private(tmp_path):
    """The database and its log have the mode 0600; the lock of the writers has no content."""
    url = f"sqlite:///{tmp_path}/milepost.db"
    upgrade(url)
    with open_engine(url).connect() as connection:
        connection.execute(sa.text("SELECT 1"))
        connection.execute(sa.text("INSERT INTO service_keys VALUES ('x', zeroblob(32))"))
        found = {each.name: each for each in tmp_path.iterdir()}
        assert {"milepost.db", "milepost.db-wal", "milepost.db-shm"} <= found.keys()
        for name, path in found.items():
            if name != "milepost.db-writer":
                assert stat.S_IMODE(path.stat().st_mode) == 0o600, name
        assert found["milepost.db-writer"].stat().st_size == 0


@pytest.mark.usefixtures("usual_umask")
def test_name_that_looks_like_a_uri_is_the_name_of_a_private_file(tmp_path, monkeypatch):
    """A relative name with a scheme is a file like any other."""
    monkeypatch.chdir(tmp_path)
    upgrade("sqlite:///file:milepost.db")
    assert stat.S_IMODE((tmp_path / "file:milepost.db").stat().st_mode) == 0o600


def test_mode_of_an_existing_file_is_the_operators(sqlite_url):
    """A file that exists keeps its mode."""
    path = Path(str(sa.make_url(sqlite_url).database))
    path.chmod(0o640)
    with open_engine(sqlite_url).connect() as connection:
        connection.execute(sa.text("SELECT 1"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
