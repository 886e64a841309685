"""A service behind PgBouncer in session mode."""

import pytest

from tests.e2e.service import Service
from tests.pgbouncer import pgbouncer

pytestmark = pytest.mark.timeout(120)


def test_session_mode(postgres_url, tmp_path):
    """Whole lives, which a watch follows, with notifications between the replicas."""
    with (
        pgbouncer(postgres_url, pool_mode="session") as url,
        Service(url, tmp_path) as service,
    ):
        both = service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
        for _ in range(3):
            operation = both.create()
            call = both.watch(service.channel, operation.id)
            both.transition("StartOperation", operation.id)
            both.transition("UpdateProgress", operation.id, message="half")
            both.transition("CompleteOperation", operation.id)
            *_, last = call
            assert last.operation.revision == 4
        assert not service.log_lines(event="notifications interrupted")
        assert not service.log_lines(event="background task failed")
