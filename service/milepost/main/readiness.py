"""The readiness of this replica, and the probes that report it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Final

from milepost import telemetry
from milepost.domain.errors import StoreUnavailable
from milepost.storage import schema
from milepost.storage.failures import NO_ANSWER, failure
from milepost.storage.requirements import unmet_requirement
from milepost.storage.translate import cause as cause_of
from milepost.web.probes import State

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

    from milepost.main.embedded import EmbeddedStore
    from milepost.rpc.server import RpcServer
    from milepost.storage.batchers import Batchers
    from milepost.storage.health import Health

PROBE_INTERVAL_S: Final = 0.5
"""Interval at which the database is checked. A change of readiness is reported within 2 s."""
DEGRADED_S: Final = 10.0
"""Time for which a failure of some connections is shown after it was last seen."""
STARTING, DRAINING = "starting", "draining"
DATABASE: Final = "database"
"""The part that is degraded while some calls fail for the database."""


class Readiness:
    """The reason why this replica is not ready, or None."""

    def __init__(self) -> None:
        """Start as not ready."""
        self.problem: str | None = STARTING
        self.degraded: dict[str, str] = {}
        """Parts that do not work although the replica serves, each with the cause."""
        self._degraded_until = 0.0

    def note_degraded(self, part: str, problem: str | None) -> None:
        """Note why a part does not work, or with None that it does."""
        self.degraded.pop(part, None)
        if problem is not None:
            self.degraded[part] = problem

    def state(self) -> State:
        """Return what the readiness page reports."""
        return State(self.problem, self.degraded)

    def _note_failures(self, health: Health) -> None:
        """Show failures that some connections have while the database can be used.

        Such as a limit of connections that leaves enough for a check, but not for all calls.
        """
        now, shown = time.monotonic(), self.degraded.get(DATABASE)
        if health.failure is not None:
            self._degraded_until = now + DEGRADED_S
            if health.failure != shown:
                self.note_degraded(DATABASE, health.failure)
                telemetry.log.warning("some calls fail", problem=health.failure, cause=health.cause)
        elif shown is not None and now > self._degraded_until:
            self.note_degraded(DATABASE, None)
            telemetry.log.info("no calls fail any more", problem=shown)

    async def watch(self, batchers: Batchers, server: RpcServer) -> None:
        """Check the database until cancelled, and report every change to the health service."""
        while True:
            try:
                problem = await batchers.problem()
            except StoreUnavailable:
                problem = batchers.health.failure or NO_ANSWER
            if problem != self.problem:
                self.problem = problem
                _log_change(problem, batchers.health.cause)
                await server.report(ready=problem is None)
            if problem is not None:
                self.note_degraded(DATABASE, None)
            else:
                self._note_failures(batchers.health)
                batchers.health.cause = batchers.health.failure = None
            await asyncio.sleep(PROBE_INTERVAL_S)


def _log_change(problem: str | None, cause: str | None) -> None:
    """Log the only line about a problem of the database, or about its end."""
    if problem is None:
        telemetry.log.info("readiness changed", ready=True, problem=None)
    else:
        telemetry.log.warning("readiness changed", ready=False, problem=problem, cause=cause)


async def database_is_usable(
    engine: Engine,
    readiness: Readiness,
    stop: asyncio.Event,
    *,
    embedded: EmbeddedStore | None = None,
    allow_data_loss: bool = False,
) -> bool:
    """Wait for a database that meets every requirement; return False if a signal came first."""
    while not stop.is_set():
        cause = None
        try:
            if embedded is not None:
                embedded.lock()
                await asyncio.to_thread(embedded.migrate)
            problem = await asyncio.to_thread(_problem, engine, allow_data_loss=allow_data_loss)
        except Exception as error:
            problem, cause = failure(error), cause_of(error)
            if problem is None:
                raise
        if problem is None:
            return True
        if problem != readiness.problem:
            readiness.problem = problem
            telemetry.log.warning("not ready", problem=problem, cause=cause)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), PROBE_INTERVAL_S)
    return False


def _problem(engine: Engine, *, allow_data_loss: bool) -> str | None:
    """Return why the database cannot be used, or None if it can."""
    unmet = unmet_requirement(engine, allow_data_loss=allow_data_loss)
    return schema.problem(engine) if unmet is None else unmet
