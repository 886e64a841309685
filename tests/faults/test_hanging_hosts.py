"""Hosts that hang leave healthy ones most of their rate."""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network

import pytest
import sqlalchemy as sa
import uvloop

from milepost import telemetry
from milepost.domain.callback_url import CallbackRules
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.storage.tables import deliveries, operations, signing_secrets
from milepost.webhooks.concurrency import ConcurrencyLimits
from milepost.webhooks.guard import Resolver
from milepost.webhooks.sender import Sender
from tests.dispatching import WebhookDelivery
from tests.faults.hanging_hosts import HOSTS, address
from tests.outbox import insert_due

pytestmark = pytest.mark.faults

BACKLOG = 300
"""Due deliveries of each host: more than are sent during a measurement."""
SETTLE_S = 10.0
"""Time after which every host that hangs has failed."""
MEASURED_S = 15.0
KEPT_OF_20, KEPT_OF_100 = 0.8, 0.5
"""Shares of the rate that remain while 20 or 100 of 200 hosts hang."""


@contextmanager
def receivers(hanging: int) -> Iterator[int]:
    """Serve all hosts, of which the first ones hang; return their port."""
    program = [sys.executable, "-m", "tests.faults.hanging_hosts", str(hanging)]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def fill(engine: sa.Engine, port: int) -> None:
    """Replace the content of the outbox by a backlog of every host."""
    with engine.begin() as connection:
        for table in (deliveries, operations, signing_secrets):
            connection.execute(sa.delete(table))
        urls = [f"http://{address(n)}:{port}/" for n in range(HOSTS)]
        insert_due(connection, BACKLOG * HOSTS, urls)


async def rate(engine: sa.Engine, port: int) -> float:
    """Return the deliveries per second, once the dispatcher knows its receivers."""
    rules = CallbackRules(
        allow_http=True, allowed_ports=(port,), allowed_networks=(ip_network("127.0.0.0/8"),)
    )
    batchers, sender = Batchers(engine), Sender(rules, Resolver(rules))
    async with WebhookDelivery(
        engine, Stores(batchers), sender, limits=ConcurrencyLimits(), rules=rules, attempts=8
    ) as delivery:
        await asyncio.sleep(SETTLE_S)
        begun, before = time.perf_counter(), delivery.counts().get("DELIVERED", 0)
        await asyncio.sleep(MEASURED_S)
        found = (delivery.counts()["DELIVERED"] - before) / (time.perf_counter() - begun)
    await sender.close()
    await batchers.close()
    return found


def measured(url: str, hanging: int) -> float:
    """Return the deliveries per second while the first `hanging` hosts hang."""
    engine = open_engine(url)
    with receivers(hanging) as port:
        fill(engine, port)
        found = uvloop.run(rate(engine, port))
    engine.dispose()
    return found


def test_hosts_that_hang(database_url: str):
    """20 of 200 hosts that hang leave 0.8 of the rate, 100 of them leave 0.5."""
    telemetry.configure_logs(level="error", as_json=True)  # a line for each webhook costs much
    rates = {hanging: measured(database_url, hanging) for hanging in (0, 20, 100)}
    assert rates[20] >= KEPT_OF_20 * rates[0], rates
    assert rates[100] >= KEPT_OF_100 * rates[0], rates
