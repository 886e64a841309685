"""A service behind PgBouncer: it serves in session mode, and names the other modes."""

import json

from tests.e2e.commands import OK, REFUSED, milepost
from tests.e2e.service import START_SECONDS, Service
from tests.pgbouncer import pgbouncer
from tests.waiting import eventually


def test_session_mode(postgres_url, tmp_path):
    """Two replicas behind PgBouncer: whole lives on one, which the watch on the other follows."""
    with pgbouncer(postgres_url, pool_mode="session", default_pool_size="60") as url:
        assert milepost("check-config", "--connect", MILEPOST_DATABASE_URL=url).code == OK
        with Service(url, tmp_path) as one, Service(url, tmp_path) as other:
            both = one.client("both", roles=("CALLER", "WORKER"), functions=("*",))
            for _ in range(3):
                operation = both.create()
                call = both.watch(other.channel, operation.id)
                both.transition("StartOperation", operation.id)
                both.transition("UpdateProgress", operation.id, message="half")
                both.transition("CompleteOperation", operation.id)
                *_, last = call
                assert last.operation.revision == 4
            for service in (one, other):
                assert not service.log_lines(event="notifications interrupted")


def test_transaction_mode_is_refused(postgres_url, tmp_path):
    """Commands fail and the service is not ready, with the cause and the remedy."""
    with pgbouncer(postgres_url, pool_mode="transaction") as url:
        for command in ("migrate", "check-config"):
            done = milepost(command, MILEPOST_DATABASE_URL=url)
            assert done.code == REFUSED
            assert done.err.startswith("error: database: a connection pooler in transaction or")
        service = Service(url, tmp_path)
        service.start(ready=False)
        try:

            def reason():
                return json.loads(service.probe("/readyz")[1])["reason"]

            eventually(
                lambda: service.log_lines(event="not ready"), within=START_SECONDS, what="logged"
            )
            assert reason().startswith("a connection pooler in transaction or statement mode")
        finally:
            service.stop()
