"""PgBouncer in front of PostgreSQL: session mode is as without it, the others are refused."""

import asyncio
from functools import partial

import psycopg
import pytest
import sqlalchemy as sa

from milepost.config import load
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import Transition
from milepost.main.checks import check
from milepost.main.database import DatabaseError
from milepost.main.migration import migrate
from milepost.main.readiness import Readiness, database_is_usable
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.failures import POOLER
from milepost.storage.requirements import unmet_requirement
from milepost.storage.session import Session
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.test_notifications import replicas
from tests.contract.test_session_settings import set_defaults
from tests.pgbouncer import pgbouncer
from tests.waiting import until

OPTIONS = "-c search_path=elsewhere,public --statement-timeout=4321 -c datestyle=German,\\ DMY"


@pytest.fixture
def pooled_url(postgres_url):
    """The URL of a database with odd defaults, behind a PgBouncer in session mode."""
    # PgBouncer's own statements and idle connections have these two.
    set_defaults(postgres_url, statement_timeout="20000", idle_session_timeout="20000")
    with pgbouncer(postgres_url, pool_mode="session") as url:
        yield url


def settings_of(url, **kind):
    """Return all settings of a session."""
    session = Session(open_engine(url), **kind)
    rows = session.fetch(sa.text("SELECT name, setting FROM pg_settings"))
    session.reset()
    return dict(tuple(row) for row in rows)


def with_options(url):
    """Return a URL with options of the operator."""
    changed = sa.make_url(url).update_query_dict({"options": OPTIONS})
    return changed.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    "kind", [{"pinned_plans": True}, {"pinned_plans": True, "read_only": True}]
)
def test_settings_are_those_without_a_pooler(postgres_url, pooled_url, kind):
    """Every setting of a session behind PgBouncer is that of a direct one, with options too.

    A session on a server process that another client has used before has them as well.
    """
    assert settings_of(pooled_url, **kind) == settings_of(postgres_url, **kind)
    direct = settings_of(with_options(postgres_url), **kind)
    for _ in range(2):
        assert settings_of(with_options(pooled_url), **kind) == direct


@pytest.mark.parametrize("is_pooled", [True, False])
def test_options_of_the_url(request, postgres_url, is_pooled):
    """Options are set; those that would change how values are read are not."""
    url = request.getfixturevalue("pooled_url") if is_pooled else postgres_url
    found = settings_of(with_options(url))
    assert found["search_path"] == "elsewhere,public"
    assert found["statement_timeout"] == "4321"
    assert found["DateStyle"] == "ISO, MDY"
    assert found["lock_timeout"] == "2000"


def test_unknown_option_is_refused(postgres_url):
    """An option that the server does not know fails the connection: it is not dropped."""
    url = sa.make_url(postgres_url).update_query_dict({"options": "-c no_such_setting=1"})
    engine = open_engine(url.render_as_string(hide_password=False))
    with pytest.raises(sa.exc.DBAPIError, match="no_such_setting"):
        engine.connect()


async def test_session_mode_meets_the_requirements(pooled_url):
    """A PgBouncer in session mode is no obstacle, while others use it too."""
    engine = open_engine(pooled_url)
    found = await asyncio.gather(*(asyncio.to_thread(unmet_requirement, engine) for _ in range(3)))
    assert found == [None] * 3


@pytest.mark.parametrize("pool_mode", ["transaction", "statement"])
@pytest.mark.parametrize("processes", ["1", "2", "3"])
@pytest.mark.parametrize("server_round_robin", ["0", "1"])
async def test_other_modes_are_refused(postgres_url, pool_mode, processes, server_round_robin):
    """A PgBouncer that changes the server process is refused, however it chooses the next one.

    Both commands fail, and a service is not ready.
    """
    with pgbouncer(
        postgres_url,
        pool_mode=pool_mode,
        min_pool_size=processes,
        default_pool_size=processes,
        server_round_robin=server_round_robin,
    ) as url:
        for refuse in (
            partial(check, load(database_url=url), connect=False),
            partial(migrate, url),
        ):
            with pytest.raises(DatabaseError) as refused:
                await asyncio.to_thread(refuse)
            assert str(refused.value).startswith(f"database: {POOLER}")
            assert not refused.value.away
        readiness, stop = Readiness(), asyncio.Event()
        waiting = asyncio.create_task(database_is_usable(open_engine(url), readiness, stop))
        await until(lambda: readiness.problem == POOLER)
        stop.set()
        assert not await waiting


async def test_life_with_prepared_statements(pooled_url):
    """Whole lives, side by side, through the prepared statements of every batcher."""
    batchers = Batchers(open_engine(pooled_url))
    stores = Stores(batchers)
    try:
        for _ in range(2):  # the second time each statement is prepared already
            done = await asyncio.gather(
                *(factories.reach(stores.operations, Status.COMPLETED) for _ in range(5))
            )
            for each in done:
                purge = factories.change(Transition.PURGE, each.id)
                await stores.operations.delete(purge)
        assert await batchers.problem() is None
    finally:
        await batchers.close()


async def test_notifications(pooled_url):
    """Replicas behind PgBouncer notify each other."""
    async with replicas(open_engine(pooled_url)) as (first, second):
        changed = new_operation_id()
        first.notifications.notify(changed)
        await until(lambda: changed in second.notified)
        assert first.notified == []
        assert (first.interruptions, second.interruptions) == (0, 0)


def test_start_up_options_would_be_refused(pooled_url):
    """PgBouncer refuses start-up options, which is why settings are set afterwards."""
    plain = sa.make_url(pooled_url).set(drivername="postgresql")
    with pytest.raises(psycopg.OperationalError, match="unsupported startup parameter"):
        psycopg.connect(
            plain.render_as_string(hide_password=False), options="-c statement_timeout=1"
        )
