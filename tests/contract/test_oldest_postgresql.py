"""The oldest PostgreSQL that is supported: the suites pass on it as on the newest."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.postgres import URL_VARIABLE, PostgresCluster
from tests.postgres_binaries import OLDEST

ROOT = Path(__file__).parents[2]
PYTEST = (sys.executable, "-m", "pytest", "-q", "-k", "not sqlite")
SUITES = (
    "tests/contract",
    "tests/migration",
    "tests/e2e/test_claim.py",
    "tests/e2e/test_streaming.py",
    "tests/e2e/test_watching.py",
    "tests/e2e/webhooks",
)


@pytest.mark.timeout(1_800)
def test_suites_pass_on_the_oldest_postgresql():
    """The contract, the migrations, claims, streams, watches and webhooks work on PostgreSQL 15."""
    binaries = Path(OLDEST.require()).parent
    with PostgresCluster(durable=False, in_memory=True, binaries=binaries) as cluster:
        done = subprocess.run(
            [*PYTEST, "--ignore", __file__, *SUITES],
            cwd=ROOT,
            env={**os.environ, URL_VARIABLE: cluster.url("postgres")},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout[-10_000:]
