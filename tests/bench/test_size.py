"""A minimal run of the comparison of sizes."""

import pytest

from tests.bench.size import run


@pytest.mark.timeout(600)  # it starts PostgreSQL and two services
def test_every_call_is_measured_beside_few_and_many():
    """Each call of the comparison succeeds on both databases, whatever their size."""
    lines = run(1_000, 5_000, rounds=1, warm_up=1)
    names = {line.name.split()[0] for line in lines}
    assert {"GetOperation", "ListOperations", "ClaimOperations", "CompleteOperation"} <= names
    assert all(line.few > 0 and line.many > 0 for line in lines)
