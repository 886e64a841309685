"""The proof of the proof: each seeded bug is found by its hunt."""

import asyncio
import dataclasses
import subprocess
import sys
import uuid

import pytest

from tests.faults.proof.cluster import fresh_database
from tests.faults.proof.hunts import HUNTS, SERVER_SETTINGS
from tests.faults.proof.run import Size, run
from tests.faults.proof.seeded_bugs import BUGS

SEEDS = (1, 2, 3)
"""A hunt that finds nothing is repeated with the next one."""


@pytest.fixture(scope="module")
def database():
    """A database on a cluster that only the hunts use."""
    with fresh_database(Size(lives=1, faults={}), SERVER_SETTINGS) as database:
        yield database


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BUGS)
def test_seeded_bug_is_found(tmp_path, database, name):
    """A service with this bug does not pass."""
    hunt = HUNTS[name]
    found = set()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        own = dataclasses.replace(database, name=f"hunt_{uuid.uuid4().hex}")
        report = asyncio.run(run(seed, hunt.size, own, folder, bug=name))
        database.cluster.drop_database(own.name)
        found |= report.kinds
        if found & hunt.finds:
            return
    raise AssertionError(f"{name} was not found; found was {found}")


def test_every_bug_can_be_seeded():
    """Each bug fits the service. One process takes them all: nothing is served."""
    seeds = (
        "from tests.faults.proof.seeded_bugs import BUGS\n"
        "for bug in BUGS.values():\n"
        "    bug.seed(0.0)\n"
    )
    subprocess.run([sys.executable, "-c", seeds], check=True, timeout=60)


def test_every_bug_has_a_hunt():
    """No bug is without a hunt."""
    assert BUGS.keys() == HUNTS.keys()
