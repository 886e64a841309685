"""The connections of one process to its database, and the batchers that use them."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Final, TypeVar

from milepost.domain.errors import StoreUnavailable
from milepost.storage.batching import MAX_BATCH, QUEUE_TIMEOUT_S, Batcher
from milepost.storage.engine import database_of
from milepost.storage.health import Health, probe_writes
from milepost.storage.session import Session
from milepost.storage.transaction_spans import TransactionSpans, named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Engine

    from milepost.storage.batching import Run

Found = TypeVar("Found")

MAX_CLAIMS: Final = 64
"""Claims that run together. Those of different functions run one after the other."""
QUERY_BATCHERS: Final = 2
"""Lists and other rare reads that run concurrently."""
SWEEP_TIMEOUT_S: Final = 4.5
"""Time that one part of a sweep may take; no caller waits for it."""


class Batchers:
    """The batchers that all stores of a process share. Create and close them on a running loop."""

    def __init__(
        self,
        engine: Engine,
        *,
        batching: bool = True,
        allow_data_loss: bool = False,
        queue_timeout_s: float = QUEUE_TIMEOUT_S,
    ) -> None:
        """Start the batchers.

        Args:
            engine: the engine of the database.
            batching: run concurrent calls in one transaction; otherwise each has its own.
            allow_data_loss: accept a database that may lose acknowledged changes in a crash.
            queue_timeout_s: the time that a call waits for the database.
        """
        self._engine = engine
        self._queue_timeout_s = queue_timeout_s
        self._allow_data_loss = allow_data_loss
        self.database = database_of(engine)
        self.health = Health()
        max_batch = MAX_BATCH if batching else 1
        self._spans = TransactionSpans(engine)
        self.writes = self._writer("writes", max_batch=max_batch)
        """Creates, transitions, and other writes that callers wait for."""
        self.reads = Batcher(
            "reads",
            Session(engine, pinned_plans=True, read_only=True, health=self.health),
            max_batch=max_batch,
            repeatable=True,
            queue_timeout_s=queue_timeout_s,
            spans=self._spans,
        )
        """Reads of operations by their ids."""
        queries = [
            Batcher(
                f"query-{n}",
                Session(engine, pinned_plans=True, read_only=True, health=self.health),
                max_batch=1,
                repeatable=True,
                queue_timeout_s=queue_timeout_s,
                spans=self._spans,
            )
            for n in range(QUERY_BATCHERS)
        ]
        self.claims = self.sweeps = self.deliveries = self.delivery_claims = self.writes
        if not self.database.has_one_writer:
            self.claims = self._writer(
                "claims", max_batch=min(max_batch, MAX_CLAIMS), restarts_timeout=True
            )
            self.sweeps = self._writer("sweeps", max_batch=1, queue_timeout_s=SWEEP_TIMEOUT_S)
            # Transitions do not wait for the dispatcher, nor its claims for its settlements.
            self.deliveries = self._writer("deliveries")
            self.delivery_claims = self._writer("delivery-claims")
        self._all = {
            self.writes,
            self.reads,
            self.claims,
            self.sweeps,
            self.deliveries,
            self.delivery_claims,
            *queries,
        }
        self._queries = itertools.cycle(queries)

    def _writer(
        self,
        name: str,
        *,
        max_batch: int = MAX_BATCH,
        queue_timeout_s: float | None = None,
        restarts_timeout: bool = False,
    ) -> Batcher:
        session = Session(self._engine, pinned_plans=True, health=self.health)
        return Batcher(
            name,
            session,
            max_batch=max_batch,
            queue_timeout_s=queue_timeout_s or self._queue_timeout_s,
            restarts_timeout=restarts_timeout,
            spans=self._spans,
        )

    def read(self, query: Callable[[Session], Found]) -> asyncio.Future[Found]:
        """Return the result of `query`, which may run again after a lost connection."""
        run = named("SELECT")(alone(query))
        return next(self._queries).submit(run, None, object())

    async def problem(self) -> str | None:
        """Return why the database cannot be used, or None if it takes reads and writes.

        Raises:
            StoreUnavailable: the database does not answer.
        """
        unmet = await self.read(self._unmet_requirement)
        if unmet is None and self.health.is_in_doubt and not await self._takes_writes():
            # The session that failed was perhaps of a time when the server was read-only.
            await self._takes_writes()
        return unmet or self.health.refusal

    def _unmet_requirement(self, session: Session) -> str | None:
        allowed = self._allow_data_loss
        unmet = self.database.unmet_requirement(session, allow_data_loss=allowed)
        if unmet is None and self.health.refusal is None:
            return None
        session.reset()  # defaults of a database or a role are those of new sessions only
        return self.database.unmet_requirement(session, allow_data_loss=allowed)

    async def _takes_writes(self) -> bool:
        try:
            await self.writes.submit(atomic(probe_writes), None, object())
        except StoreUnavailable:
            self.health.note_probe(succeeded=False)
            if self.health.refusal is None:
                raise
            return False
        self.health.note_probe(succeeded=True)
        return True

    async def connect(self) -> None:
        """Open every connection, so that no first call waits for one; a failure is left to it."""
        opened = alone(lambda session: session.connection)
        calls = [batcher.submit(opened, None, object()) for batcher in self._all]
        await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        """Finish the accepted calls, then close every connection."""
        await asyncio.gather(*(batcher.close() for batcher in self._all))


def alone(run: Callable[[Session], Found]) -> Run[None, Found]:
    """Return `run` as a call that shares its statement with no other call."""

    def run_alone(session: Session, items: Sequence[None]) -> Sequence[Found]:
        return [run(session) for _ in items]

    return run_alone


def atomic(run: Callable[[Session], Found]) -> Run[None, Found]:
    """Return `run` as such a call, which is kept as a whole or not at all."""

    def run_atomically(session: Session, items: Sequence[None]) -> Sequence[Found]:
        with session.atomic():
            return [run(session) for _ in items]

    return run_atomically
