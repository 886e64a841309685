"""One run: lives and faults from a seed, and what the checker says about them."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from milepost.domain.transitions import ACTIVE
from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.faults.proof import tables
from tests.faults.proof.checker import check, counts
from tests.faults.proof.clients import Client
from tests.faults.proof.fleet import REPLICAS, Database, Fleet, running_fleet
from tests.faults.proof.history import History, Outcome
from tests.faults.proof.lives import (
    CALLBACK,
    KINDS,
    LEASE,
    NO_WAIT,
    QUOTA,
    SHARED,
    Life,
    choose,
    lead,
)
from tests.faults.proof.nemesis import Fault, Nemesis, Planned, plan
from tests.faults.proof.receiver import HANGING, Receiver, receiving
from tests.faults.proof.transports import Grpc, Http, RefusedCall
from tests.faults.proof.violations import Kind, Violation
from tests.machine import slowdown

SETTLE_S: Final = 60.0
"""Time in which everything ends after the last fault: leases, retries and webhooks."""
CLIENTS: Final = 16
CROWDS: Final = 2
POLL_S: Final = 0.1
FLOORS: Final = {
    "CreateOperation": 0.9,
    "StartOperation": 0.3,
    "UpdateProgress": 0.4,
    "StreamProgress": 0.4,
    "ClaimOperations": 0.25,
    "CompleteOperation": 0.3,
    "FailOperation": 0.05,
    "CancelOperation": 0.05,
    "over http": 0.3,
    "watches": 0.1,
    "webhooks": 0.15,
}
"""The successes that each life needs on average, about half of the usual: a run of refused calls
violates nothing either."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The size of a run, and its faults."""

    lives: int
    faults: Mapping[Fault, int]
    kinds: Sequence[str] = tuple(KINDS)
    metadata_bytes: int = 0
    clock_s: float = 0.0
    """Seconds by which the local clocks of the replicas are ahead from the start."""
    hanging: float = HANGING
    """Share of the webhooks that are answered too late."""
    callbacks: float = CALLBACK
    """Share of the lives with a callback URL."""
    freeze_s: float | None = None
    """Duration of a freeze; None for that of the plan."""
    settle_s: float = SETTLE_S


@dataclass(slots=True)
class Report:
    """The outcome of a run."""

    seed: int
    lives: int
    seconds: float
    history: History
    planned: Sequence[Planned]
    violations: Sequence[Violation]
    faults: Counter[Fault] = field(default_factory=Counter)

    @property
    def kinds(self) -> set[Kind]:
        """The kinds of violations that were found."""
        return {violation.kind for violation in self.violations}

    @property
    def rare(self) -> Mapping[str, float]:
        """The successes for each life that were too few to prove anything."""
        done = [call for call in self.history.calls if call.outcome is Outcome.DONE]
        found = Counter(call.method for call in done) + Counter(f"over {call.via}" for call in done)
        found["watches"] = sum(bool(watch.views) for watch in self.history.watches)
        found["webhooks"] = len(self.history.webhooks)
        shares = {each: found[each] / self.lives for each in FLOORS}
        return {each: share for each, share in shares.items() if share < FLOORS[each]}

    def __str__(self) -> str:
        """Return the figures, line by line."""
        outcomes = Counter(call.outcome for call in self.history.calls)
        reasons = Counter(
            call.reason for call in self.history.calls if call.outcome is Outcome.REFUSED
        )
        lines = [
            f"seed {self.seed}: {self.lives} lives in {self.seconds:.0f} s",
            f"{len(self.history.calls)} calls: "
            + ", ".join(f"{outcomes[outcome]} {outcome}" for outcome in Outcome),
            "refused: " + ", ".join(f"{number} {reason}" for reason, number in reasons.items()),
            f"{len(self.history.watches)} watches, {len(self.history.webhooks)} webhooks",
            *(f"{number} x {fault}" for fault, number in self.faults.items()),
            *(f"{number} x {kind}" for kind, number in counts(self.violations).items()),
            *(str(violation) for violation in self.violations[:20]),
        ]
        return "\n".join(lines)


async def run(
    seed: int, size: Size, database: Database, folder: Path, *, bug: str | None = None
) -> Report:
    """Lead the lives of a seed under its faults, and check what happened."""
    begin = time.monotonic()
    history = History()
    planned = _plan(seed, size)
    await asyncio.to_thread(database.create)
    quotas = {f"crowd-{number}": QUOTA for number in range(CROWDS)}
    async with contextlib.AsyncExitStack() as stack:
        receiver = await stack.enter_async_context(
            receiving(history, random.Random(f"webhooks {seed}"), size.hanging)
        )
        fleet = await stack.enter_async_context(
            running_fleet(
                database,
                folder,
                receiver.port,
                bug=bug,
                quotas=quotas,
                clock_offset_s=size.clock_s,
            )
        )
        cast = await Cast.gather(fleet, history, receiver, seed, stack)
        nemesis = Nemesis(fleet, planned)
        await cast.perform(size, nemesis)
        await cast.settle(size.settle_s)
    found = await asyncio.to_thread(tables.read, database.url)
    violations = check(history, found, quotas)
    return Report(
        seed,
        size.lives,
        time.monotonic() - begin,
        history,
        planned,
        violations,
        nemesis.done,
    )


def _plan(seed: int, size: Size) -> Sequence[Planned]:
    planned = plan(seed, size.lives, size.faults, REPLICAS)
    if size.freeze_s is None:
        return planned
    return [
        replace(each, amount=size.freeze_s) if each.fault is Fault.FREEZE_REPLICA else each
        for each in planned
    ]


@dataclass(slots=True)
class Cast:
    """The clients of a run."""

    seed: int
    database: Database
    clients: Sequence[Client]
    crowds: Sequence[Client]
    receiver: Receiver
    watches: set[asyncio.Task[None]] = field(default_factory=set)

    @classmethod
    async def gather(
        cls,
        fleet: Fleet,
        history: History,
        receiver: Receiver,
        seed: int,
        stack: contextlib.AsyncExitStack,
    ) -> "Cast":
        """Connect the clients to every replica, each with channels of its own."""

        async def client(subject: str) -> Client:
            key = await asyncio.to_thread(fleet.add_principal, subject)
            grpcs = [Grpc(replica.grpc_pipe.address) for replica in fleet.replicas]
            https = [Http(replica.http_pipe.address) for replica in fleet.replicas]
            transports: list[Grpc | Http] = [*grpcs, *https]
            for transport in transports:
                stack.push_async_callback(transport.close)
            dice = random.Random(f"{subject} {seed}")
            found = Client(subject, key, grpcs, https, history, dice=dice)
            answer = await found.change("RotateSigningSecret")
            receiver.secrets[subject] = answer.current.value
            return found

        return cls(
            seed,
            fleet.database,
            [await client(f"client-{number}") for number in range(CLIENTS)],
            [await client(f"crowd-{number}") for number in range(CROWDS)],
            receiver,
        )

    async def perform(self, size: Size, nemesis: Nemesis) -> None:
        """Lead all lives while the nemesis acts."""
        numbers = iter(range(size.lives))
        async with asyncio.TaskGroup() as group:
            group.create_task(nemesis.run())
            for client in self.clients:
                group.create_task(self._lead(client, numbers, size, nemesis))

    async def _lead(
        self, client: Client, numbers: Iterator[int], size: Size, nemesis: Nemesis
    ) -> None:
        for number in numbers:
            dice = random.Random(f"{number} {self.seed}")
            await nemesis.begin_life(number)
            life = Life(
                client,
                dice.choice(self.crowds),
                dice,
                self.receiver.url(client.subject),
                self.watches,
                size=size.metadata_bytes,
                callbacks=size.callbacks,
            )
            await lead(life, choose(dice, size.kinds))

    async def settle(self, seconds: float) -> None:
        """Finish what lives have left, and wait until nothing is due any more."""
        deadline = time.monotonic() + seconds * slowdown()
        known = {view.id for call in self.clients[0].history.calls for view in call.views}
        while time.monotonic() < deadline:
            await asyncio.gather(*(self._finish(client) for client in self.clients[:4]))
            await asyncio.gather(*(self._cancel_unknown(crowd, known) for crowd in self.crowds))
            if await asyncio.to_thread(self._is_settled):
                break
            await asyncio.sleep(POLL_S)
        if self.watches:
            _, late = await asyncio.wait(self.watches, timeout=max(1, deadline - time.monotonic()))
            for task in late:
                task.cancel()

    async def _finish(self, client: Client) -> None:
        answer = await client.ask(
            "ClaimOperations", functions=[SHARED], max_operations=20, lease=LEASE, timeout=NO_WAIT
        )
        for operation in answer.operations:
            with contextlib.suppress(RefusedCall):
                await client.change(
                    "CompleteOperation", operation_id=operation.id, attempt=operation.attempt
                )

    async def _cancel_unknown(self, crowd: Client, known: Collection[str]) -> None:
        """Cancel the operations of a crowd that no answer has shown.

        A network that was silent can deliver a create after its repetition was refused for the
        quota, and then there is room for it. No life knows of that operation.
        """
        answer = await crowd.ask("ListOperations", statuses=[pb.OPERATION_STATUS_PENDING])
        for operation in answer.operations:
            if operation.id not in known:
                with contextlib.suppress(RefusedCall):
                    await crowd.change("CancelOperation", operation_id=operation.id)

    def _is_settled(self) -> bool:
        active = ", ".join(f"'{status}'" for status in sorted(ACTIVE))
        ((left,),) = self.database.execute(
            f"SELECT (SELECT count(*) FROM operations WHERE status IN ({active}))"  # noqa: S608
            " + (SELECT count(*) FROM deliveries WHERE status = 'PENDING')"
        )
        return left == 0
