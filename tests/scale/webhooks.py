"""Webhooks while receivers hang: `python -m tests.scale.webhooks`.

200 hosts have more due deliveries than are sent during a measurement. Of them none, 20 or 100
accept connections and never answer. Measured are the deliveries per second to the healthy ones,
once each host that hangs has failed.
"""

import argparse
import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from typing import Final

import sqlalchemy as sa
import uvloop
from rich.console import Console

from milepost import telemetry
from milepost.domain.callback_url import CallbackRules
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.stores import Stores
from milepost.storage.tables import deliveries, operations, signing_secrets
from milepost.webhooks.concurrency import ConcurrencyLimits
from milepost.webhooks.guard import Resolver
from milepost.webhooks.sender import Sender
from tests.dispatching import WebhookDelivery
from tests.faults.hanging_hosts import HOSTS, address
from tests.outbox import insert_due
from tests.postgres import PostgresCluster
from tests.scale.figures import Figure, table

BACKLOG: Final = 300
"""Due deliveries of each host."""
SETTLE_S: Final = 10.0
"""Time after which every host that hangs has failed."""
LOOK_S: Final = 0.1
SECONDS: Final = 15.0
KEPT: Final = {20: 0.8, 100: 0.5}
"""Shares of the rate that remain while so many of the hosts hang."""


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


def fill(engine: sa.Engine, port: int, backlog: int) -> None:
    """Replace the content of the outbox by a backlog of every host."""
    with engine.begin() as connection:
        for each in (deliveries, operations, signing_secrets):
            connection.execute(sa.delete(each))
        urls = [f"http://{address(n)}:{port}/" for n in range(HOSTS)]
        insert_due(connection, backlog * HOSTS, urls)


async def rate(engine: sa.Engine, port: int, settle_s: float, seconds: float) -> float:
    """Return the deliveries per second, once the dispatcher knows its receivers."""
    rules = CallbackRules(
        allow_http=True, allowed_ports=(port,), allowed_networks=(ip_network("127.0.0.0/8"),)
    )
    batchers, sender = Batchers(engine), Sender(rules, Resolver(rules))
    async with WebhookDelivery(
        engine, Stores(batchers), sender, limits=ConcurrencyLimits(), rules=rules, attempts=8
    ) as delivery:
        await asyncio.sleep(settle_s)
        while not delivery.counts().get("DELIVERED"):  # noqa: ASYNC110 - a store has no event
            await asyncio.sleep(LOOK_S)
        begun, before = time.perf_counter(), delivery.counts().get("DELIVERED", 0)
        await asyncio.sleep(seconds)
        found = (delivery.counts().get("DELIVERED", 0) - before) / (time.perf_counter() - begun)
    await sender.close()
    await batchers.close()
    return found


def measure(url: str, hanging: int, *, backlog: int, settle_s: float, seconds: float) -> float:
    """Return the deliveries per second while the first `hanging` hosts hang."""
    engine = open_engine(url)
    with receivers(hanging) as port:
        fill(engine, port, backlog)
        found = uvloop.run(rate(engine, port, settle_s, seconds))
    engine.dispose()
    return found


def run(
    url: str, *, backlog: int = BACKLOG, settle_s: float = SETTLE_S, seconds: float = SECONDS
) -> list[Figure]:
    """Measure on a migrated database, whose outbox is replaced."""
    telemetry.configure_logs(level="error", as_json=True)  # a line for each webhook costs much
    rates = {
        hanging: measure(url, hanging, backlog=backlog, settle_s=settle_s, seconds=seconds)
        for hanging in (0, *KEPT)
    }
    return [
        Figure(f"webhooks to {HOSTS} hosts", rates[0], "/s"),
        *(
            Figure(
                f"rate while {hanging} of {HOSTS} hang",
                rates[hanging] / rates[0] if rates[0] else 0.0,
                "x",
                at_least=share,
            )
            for hanging, share in KEPT.items()
        ),
    ]


def figures() -> list[Figure]:
    """Measure on a PostgreSQL of its own, for the table of all measurements."""
    with ExitStack() as stack:
        cluster = stack.enter_context(PostgresCluster(durable=False, in_memory=True))
        cluster.create_database("webhooks")
        upgrade(cluster.url("webhooks"))
        return run(cluster.url("webhooks"))


def main() -> int:
    """Measure, print the table, and return 1 if a bound is missed."""
    argparse.ArgumentParser(prog="python -m tests.scale.webhooks", description=__doc__).parse_args()
    found = figures()
    Console(width=120).print(table("webhooks", found))
    return 1 if any(figure.is_missed for figure in found) else 0


if __name__ == "__main__":
    sys.exit(main())
