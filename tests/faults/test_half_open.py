"""Half-open connections to PostgreSQL: their peer is gone without a word, and they are replaced."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
import sqlalchemy as sa

from milepost.domain.errors import StoreUnavailable
from milepost.domain.operation import new_operation_id
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.notifications import HANG_TIMEOUT_S, PROBE_INTERVAL_S
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.stored import answers
from tests.contract.test_notifications import Replica
from tests.faults.proxy import proxy
from tests.waiting import until

REPLACED_WITHIN_S = 2 * HANG_TIMEOUT_S + PROBE_INTERVAL_S
WITHIN_S = 1.0
IDLE_TURNS = 3
"""Probes of a connection without traffic, in more time than `HANG_TIMEOUT_S`."""


@pytest.fixture
async def silenced(postgres_url):
    """A proxy in front of the database, and the engine that connects through it."""
    url = sa.make_url(postgres_url)
    async with proxy(f"{url.host}:{url.port}") as between:
        host, _, port = between.address.rpartition(":")
        there = url.set(host=host, port=int(port)).render_as_string(hide_password=False)
        yield between, open_engine(there)


async def test_silent_listener(silenced, postgres_url):
    """A connection of notifications that goes silent is replaced, and reports a gap."""
    between, engine = silenced
    async with AsyncExitStack() as stack:
        here, there = Replica(engine), Replica(open_engine(postgres_url))
        for each in (here, there):
            stack.push_async_callback(each.notifications.close)
        await until(lambda: here.gaps == there.gaps == 1)
        between.silence()
        await until(lambda: here.gaps == 2, REPLACED_WITHIN_S)
        assert here.interruptions == 1
        changed = new_operation_id()
        there.notifications.notify(changed)
        await until(lambda: changed in here.notified, WITHIN_S)


async def test_idle_listener(postgres_url):
    """A connection of notifications that is only idle is kept."""
    idle = Replica(open_engine(postgres_url))
    await until(lambda: idle.notifications._turns >= IDLE_TURNS)
    assert (idle.gaps, idle.interruptions) == (1, 0)
    await idle.notifications.close()


async def test_silent_sessions(silenced):
    """Calls on connections that go silent fail within a second, and the next ones succeed."""
    between, engine = silenced
    batchers = Batchers(engine)
    store = Stores(batchers).operations
    operation = await factories.create(store)
    assert await store.get(operation.id, factories.access_filter()) == operation
    between.silence()
    async with asyncio.timeout(WITHIN_S):
        refused = await answers(
            store.get(operation.id, factories.access_filter()), factories.create(store)
        )
    assert {type(each) for each in refused} == {StoreUnavailable}
    await until(lambda: not batchers.writes._running)
    assert await store.get(operation.id, factories.access_filter()) == operation
    await factories.create(store)
    await batchers.close()


def test_settings_of_the_connection(postgres_url):
    """The system probes idle connections, and gives up unacknowledged data, by itself."""
    with open_engine(postgres_url).connect() as connection:
        driver: Any = connection.connection.driver_connection
        found = driver.info.get_parameters()
    assert found["keepalives_idle"] == "4"
    assert found["tcp_user_timeout"] == "10000"
