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
from tests.faults.proof.violations import Kind

SEEDS = (1, 2, 3)
"""A hunt that finds nothing is repeated with the next one."""


@pytest.fixture(scope="module")
def database():
    """A database on a cluster that only the hunts use."""
    with fresh_database(Size(lives=1, faults={}), SERVER_SETTINGS) as database:
        yield database


@pytest.fixture
def hunted(tmp_path, database):
    """A function that goes on the hunt of a name, and returns the kinds of violations it found."""

    def hunt(name: str, seed: int, bug: str | None) -> set[Kind]:
        folder = tmp_path / str(seed)
        folder.mkdir()
        own = dataclasses.replace(database, name=f"hunt_{uuid.uuid4().hex}")
        report = asyncio.run(run(seed, HUNTS[name].size, own, folder, bug=bug))
        database.cluster.drop_database(own.name)
        return report.kinds

    return hunt


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", BUGS)
def test_seeded_bug_is_found(hunted, name):
    """A service with this bug does not pass."""
    found = set()
    for seed in SEEDS:
        found |= hunted(name, seed, name)
        if found & HUNTS[name].finds:
            return
    raise AssertionError(f"{name} was not found; found was {found}")


@pytest.mark.faults
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", HUNTS)
def test_hunt_finds_nothing_without_a_bug(hunted, name):
    """The violations that a hunt finds are those of the bug, not of the hunt."""
    assert not hunted(name, SEEDS[0], None) & HUNTS[name].finds


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
