"""Random programs of transitions, claims and sweeps, against a model of the specification."""

import asyncio
import contextlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.domain.errors import MilepostError, QuotaExceeded
from milepost.domain.operation import Operation
from milepost.domain.sweep import SWEEPS
from milepost.domain.transitions import Transition
from milepost.storage.batchers import Batchers
from milepost.storage.stores import Stores
from tests import factories
from tests.contract.lifecycle_model import MAX_ATTEMPTS, STEPS, Model
from tests.contract.stored import Stored
from tests.contract.test_claims import LEASE, claim

MAX_PROGRAMS: Final = 60
MAX_STEPS: Final = 14
ENDS: Final = {"complete", "fail", "cancel", "queue timeout ends"}
SAMPLED: Final = (*STEPS, *3 * tuple(step for step in STEPS if step not in ENDS))
"""The steps that end an operation at once are rare, so that programs are long."""
RUN_TIMEOUT = timedelta(minutes=10)
QUEUE_TIMEOUT = timedelta(minutes=20)
GRACE = timedelta(minutes=5)
PAUSE = timedelta(hours=1)
"""Longer than any pause of the retry policy."""
LATE = timedelta(seconds=1)
TTL = timedelta(days=7)
"""Longer than all times of a program together."""

SWEPT_AFTER: Final[Mapping[str, tuple[timedelta, tuple[str, ...]]]] = {
    "lease ends": (LEASE, ("cancel_lost", "abandon", "release")),
    "grace ends": (GRACE, ("cancel",)),
    "run timeout ends": (RUN_TIMEOUT, ("run_out", "retry")),
    "queue timeout ends": (PAUSE + QUEUE_TIMEOUT, ("time_out",)),
    "wait ends": (PAUSE, ()),
}
"""The time that passes in a step, and the sweeps that follow."""
REQUESTS: Final[Mapping[str, tuple[Transition, dict[str, Any]]]] = {
    "progress": (Transition.PROGRESS, {"progress": 0.5}),
    "checkpoint": (Transition.PROGRESS, {"checkpoint": factories.payload()}),
    "release later": (Transition.RELEASE, {"delay": PAUSE}),
    "request cancel": (Transition.REQUEST_CANCEL, {"grace": GRACE}),
}
"""The requests of the steps that are not named after their transition."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """One operation of its own owner and function, and its stores."""

    stores: Stores
    stored: Stored
    operation: Operation

    async def take(self, step: str) -> None:
        """Take a step; a refusal is part of the program."""
        if step == "claim":
            await self.stores.work.claim(claim(functions=(self.operation.function,)))
        elif step in SWEPT_AFTER:
            await self._let_pass(*SWEPT_AFTER[step], wakes=step == "wait ends")
        else:
            await self._request(*REQUESTS.get(step, (None, {})), step=step)

    async def _let_pass(self, time: timedelta, swept: tuple[str, ...], *, wakes: bool) -> None:
        factories.age(self.stored.engine, self.operation.id, time + LATE)
        for sweep in SWEEPS:
            if sweep.name in swept:
                await self.stores.sweeps.sweep(sweep, 10)
        if wakes:
            await self.stores.work.wake_due(10)

    async def _request(
        self, transition: Transition | None, fields: dict[str, Any], *, step: str
    ) -> None:
        asker = factories.access_filter(self.operation.owner)
        request = factories.change(
            transition or Transition(step), self.operation.id, access_filter=asker, **fields
        )
        with contextlib.suppress(MilepostError):
            await self.stores.operations.apply(request)

    def found(self) -> Model:
        """Return what is stored, in the terms of the model."""
        row = self.stored.operation(self.operation.id)
        assert row is not None
        events = self.stored.events(self.operation.id)
        return Model(
            status=row["status"],
            revision=row["revision"],
            attempt=row["attempt"],
            failed_attempts=row["failed_attempts"],
            has_progress=row["progress"] is not None,
            has_checkpoint=row["checkpoint_type"] is not None,
            is_leased=row["lease"] is not None,
            is_waiting=row["next_attempt_time"] is not None,
            is_cancelling=row["cancel_request_time"] is not None,
            history=tuple(event["transition"] for event in events),
        )

    async def is_quota_free(self) -> bool:
        """Return whether the owner, who may have one active operation, may create another."""
        try:
            await factories.create(self.stores.operations, owner=self.operation.owner, quota=1)
        except QuotaExceeded:
            return False
        return True


def test_programs_follow_the_model(engine, stored):
    """After every step, status, revision, attempts, contents, history and quota are the model's."""
    numbers = itertools.count()

    async def follow(stores: Stores, steps: list[str]) -> None:
        number = next(numbers)
        operation = await factories.create(
            stores.operations,
            owner=f"alice-{number}",
            function=f"function-{number}",
            max_attempts=MAX_ATTEMPTS,
            run_timeout=RUN_TIMEOUT,
            queue_timeout=QUEUE_TIMEOUT,
            ttl=TTL,
        )
        program = Program(stores=stores, stored=stored, operation=operation)
        expected = Model()
        for step in steps:
            await program.take(step)
            expected = expected.after(step)
            assert program.found() == expected, step
        assert await program.is_quota_free() == (not expected.is_active)

    async def opened() -> Batchers:
        return Batchers(engine)

    with asyncio.Runner() as runner:
        batchers = runner.run(opened())
        stores = Stores(batchers)

        @settings(
            max_examples=MAX_PROGRAMS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(st.lists(st.sampled_from(SAMPLED), min_size=1, max_size=MAX_STEPS))
        def programs(steps: list[str]) -> None:
            runner.run(follow(stores, steps))

        try:
            programs()
        finally:
            runner.run(batchers.close())
