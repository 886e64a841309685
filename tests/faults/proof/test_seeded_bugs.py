"""The proof of the proof: each seeded bug is found by its hunt."""

import asyncio

import pytest

from tests.faults.proof.cluster import fresh_database
from tests.faults.proof.hunts import HUNTS
from tests.faults.proof.run import run
from tests.faults.proof.seeded_bugs import BUGS

SEEDS = (1, 2, 3)
"""A hunt that finds nothing is repeated with the next one."""


@pytest.mark.faults
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", BUGS)
def test_seeded_bug_is_found(tmp_path, name):
    """A service with this bug does not pass."""
    hunt = HUNTS[name]
    found = set()
    for seed in SEEDS:
        folder = tmp_path / str(seed)
        folder.mkdir()
        with fresh_database(hunt.size, hunt.server_settings) as database:
            report = asyncio.run(run(seed, hunt.size, database, folder, bug=name))
        found |= report.kinds
        if found & hunt.finds:
            return
    raise AssertionError(f"{name} was not found; found was {found}")


def test_every_bug_has_a_hunt():
    """No bug is without a hunt."""
    assert BUGS.keys() == HUNTS.keys()
