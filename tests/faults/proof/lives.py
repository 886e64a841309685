"""Whole lives of operations, from the create to the end, in every way that the service offers."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import any_pb2, duration_pb2, struct_pb2

from milepost.gen.milepost.v1 import operation_pb2 as pb
from tests.e2e.rpcs import BROKEN
from tests.faults.proof.clients import Client
from tests.faults.proof.transports import RefusedCall

OWN: Final = "proof.own"
"""The function of operations that their client works on itself."""
SHARED: Final = "proof.shared"
"""The function of operations that any client may claim."""
LEASE: Final = duration_pb2.Duration(seconds=3)
SHORT_LEASE: Final = duration_pb2.Duration(seconds=1)
LATE_S: Final = 2.5
"""More than the short lease and the pause between two sweeps."""
CLAIM_WAIT: Final = duration_pb2.Duration(seconds=1)
NO_WAIT: Final = duration_pb2.Duration()
GRACE: Final = duration_pb2.Duration(seconds=30)
REPORTS: Final = (0.25, 0.5, 0.75)
READ: Final = 0.4
"""Share of the steps that are followed by a read."""
CALLBACK: Final = 0.4
WATCH: Final = 0.3
"""Share of the lives that are watched."""
QUOTA: Final = 3
"""Active operations of an owner in the crowd."""


@dataclass(slots=True)
class Life:
    """One life: its client, its chances, and the tasks that accompany it."""

    client: Client
    crowd: Client
    """A client of an owner with a small quota, whom several clients share."""
    dice: random.Random
    callback_url: str
    watches: set[asyncio.Task[None]]
    """Takes the watches that the life begins; they may outlast it."""
    via: str = "grpc"
    size: int = 0
    """Bytes of metadata."""
    callbacks: float = CALLBACK
    """Share of the lives with a callback URL."""

    async def create(self, function: str, client: Client | None = None) -> pb.Operation:
        """Create an operation, with a callback URL by chance."""
        fields: dict[str, Any] = {"function": function}
        if client is None and self.dice.random() < self.callbacks:
            fields["callback_url"] = self.callback_url
        if self.size:
            fields["metadata"] = struct_pb2.Struct()
            fields["metadata"]["ballast"] = self.dice.randbytes(self.size // 2).hex()
        operation: pb.Operation = await self.step("CreateOperation", client=client, **fields)
        if self.dice.random() < WATCH:
            after = self.dice.choice((0, operation.revision))
            watch = (client or self.client).watch(operation.id, after)
            self.watches.add(asyncio.create_task(watch))
        return operation

    async def step(self, method: str, *, client: Client | None = None, **fields: Any) -> Any:
        """Make a change, perhaps read what it left, and return the operation."""
        answer = await (client or self.client).change(method, via=self.via, **fields)
        if self.dice.random() < READ:
            await self.read(answer.operation.id)
        return answer.operation

    async def read(self, operation_id: str) -> None:
        """Read the operation somewhere, in one of several ways."""
        via = self.dice.choice(("grpc", "grpc", "http"))
        method, fields = self.dice.choice(
            (
                ("GetOperation", {"operation_id": operation_id}),
                ("GetOperation", {"operation_id": operation_id}),
                ("WaitOperation", {"operation_id": operation_id, "timeout": NO_WAIT}),
                ("ListOperations", {"page_size": 5}),
            )
        )
        await self.client.ask(method, via=via, **fields)

    # --- the lives ---

    async def plain(self) -> None:
        """Start, report and end over unary calls."""
        operation = await self.create(OWN)
        await self.step("StartOperation", operation_id=operation.id)
        for progress in REPORTS:
            await self.step("UpdateProgress", operation_id=operation.id, progress=progress)
        await self.end(operation.id, attempt=1)

    async def over_http(self) -> None:
        """Lead a plain life over HTTP."""
        self.via = "http"
        await self.plain()

    async def streamed(self) -> None:
        """Report over a stream."""
        operation = await self.create(OWN)
        await self.step("StartOperation", operation_id=operation.id)
        await self.client.report(operation.id, 1, REPORTS)
        await self.end(operation.id, attempt=1)

    async def claimed(self) -> None:
        """Create shared work, and claim some: one's own or that of another."""
        await self.create(SHARED)
        answer = await self.client.ask(
            "ClaimOperations", functions=[SHARED], lease=LEASE, timeout=CLAIM_WAIT
        )
        for operation in answer.operations:
            await self.work(operation)

    async def work(self, operation: pb.Operation) -> None:
        """Work on a claimed operation; sometimes fail, give it back, or leave it to its lease."""
        attempt: dict[str, Any] = {"operation_id": operation.id, "attempt": operation.attempt}
        if self.dice.random() < 0.5:
            await self.client.report(operation.id, operation.attempt, REPORTS[:2])
        else:
            await self.step("UpdateProgress", progress=0.5, **attempt)
        lot = self.dice.random()
        if lot < 0.1:
            return
        if lot < 0.2:
            await self.step("ReleaseOperation", **attempt)
        elif lot < 0.35:
            delay = duration_pb2.Duration(nanos=self.dice.randrange(200_000_000))
            await self.step(
                "FailOperation", errors=[BROKEN], retryable=True, retry_delay=delay, **attempt
            )
        else:
            await self.end(**attempt)

    async def late(self) -> None:
        """Sleep beyond the lease of a claim, and end the attempt that another may have by then."""
        await self.create(SHARED)
        answer = await self.client.ask(
            "ClaimOperations", functions=[SHARED], lease=SHORT_LEASE, timeout=CLAIM_WAIT
        )
        for operation in answer.operations:
            await asyncio.sleep(LATE_S)
            await self.end(operation.id, attempt=operation.attempt)

    async def cancelled(self) -> None:
        """Cancel during a report, or ask the worker to stop."""
        operation = await self.create(OWN)
        await self.step("StartOperation", operation_id=operation.id)
        if self.dice.random() < 0.5:
            await self.step("CancelOperation", operation_id=operation.id, grace=GRACE)
            await self.step("AcknowledgeCancellation", operation_id=operation.id)
            return
        await self.at_once(
            self.step("UpdateProgress", operation_id=operation.id, progress=0.5),
            self.step("CancelOperation", operation_id=operation.id),
        )

    async def raced(self) -> None:
        """End it in several ways at once, of which one wins."""
        operation = await self.create(OWN)
        await self.step("StartOperation", operation_id=operation.id)
        await self.at_once(
            self.step("CompleteOperation", operation_id=operation.id),
            self.step("CompleteOperation", operation_id=operation.id),
            self.step("FailOperation", operation_id=operation.id, errors=[BROKEN]),
            self.step("CancelOperation", operation_id=operation.id),
        )

    async def deleted(self) -> None:
        """Cancel it before it starts, delete it, and look for it."""
        operation = await self.create(OWN)
        await self.step("CancelOperation", operation_id=operation.id)
        await self.client.change("DeleteOperation", via=self.via, operation_id=operation.id)
        await self.at_once(self.client.ask("GetOperation", operation_id=operation.id))

    async def crowded(self) -> None:
        """Create as much as the quota allows, beside others of the same owner."""
        created = []
        for _ in range(QUOTA):
            try:
                created.append(await self.create(OWN, self.crowd))
            except RefusedCall:
                break
        for operation in created:
            await self.step("CancelOperation", client=self.crowd, operation_id=operation.id)

    # --- their parts ---

    async def end(self, operation_id: str, attempt: int) -> None:
        """Complete or fail an attempt."""
        if self.dice.random() < 0.8:
            result = any_pb2.Any()
            result.Pack(struct_pb2.Value(string_value=f"{operation_id} {attempt}"))
            await self.step(
                "CompleteOperation", operation_id=operation_id, attempt=attempt, result=result
            )
        else:
            await self.step(
                "FailOperation", operation_id=operation_id, attempt=attempt, errors=[BROKEN]
            )

    async def at_once(self, *calls: Awaitable[Any]) -> None:
        """Make calls at once, of which all but one may be refused."""
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, BaseException) and not isinstance(answer, RefusedCall):
                raise answer


Kind = Callable[[Life], Awaitable[None]]
KINDS: Final[Mapping[str, Kind]] = {
    "plain": Life.plain,
    "http": Life.over_http,
    "streamed": Life.streamed,
    "claimed": Life.claimed,
    "late": Life.late,
    "cancelled": Life.cancelled,
    "raced": Life.raced,
    "deleted": Life.deleted,
    "crowded": Life.crowded,
}
WEIGHTS: Final = {"plain": 3, "http": 2, "streamed": 3, "claimed": 4}
"""How often each kind is chosen; the others once."""


def choose(dice: random.Random, kinds: Sequence[str]) -> Kind:
    """Return a kind of life."""
    (name,) = dice.choices(kinds, [WEIGHTS.get(kind, 1) for kind in kinds])
    return KINDS[name]


async def lead(life: Life, kind: Kind) -> None:
    """Lead a life; one whose attempt was taken away is ended by another client."""
    try:
        await kind(life)
    except RefusedCall:
        return
