"""The nemesis: a plan of faults, drawn from a seed, and their execution one after the other."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from tests.faults.proof.fleet import Fleet
from tests.faults.proof.pipe import Pipe


class Fault(StrEnum):
    """A kind of fault."""

    KILL_REPLICA = "kill -9 of a replica, and its restart"
    DRAIN_REPLICA = "SIGTERM to a replica, and its restart"
    FREEZE_REPLICA = "SIGSTOP of a replica beyond a lease"
    CUT_CLIENTS = "black hole between the clients and a replica"
    CUT_DATABASE = "black hole between a replica and the database"
    END_SESSIONS = "pg_terminate_backend of all sessions"
    KILL_SESSION = "kill -9 of a session's process, which restarts PostgreSQL"
    KILL_DATABASE = "kill -9 of the postmaster, and its restart"
    FILL_DISK = "a disk without room for PostgreSQL"
    STEP_CLOCK = "a step of a replica's clock"


DATABASE_KILLS: Final = (Fault.KILL_DATABASE, Fault.KILL_SESSION)
MAX_AHEAD: Final = 48
"""Lives that may begin after a fault is due and before it is over."""
CLOCK_STEPS_S: Final = (-3600.0, -300.0, 300.0, 3600.0)
SECONDS: Final[Mapping[Fault, tuple[float, float]]] = {
    Fault.FREEZE_REPLICA: (3.5, 5.0),
    Fault.CUT_CLIENTS: (0.5, 4.0),
    Fault.CUT_DATABASE: (0.5, 4.0),
    Fault.KILL_DATABASE: (0.0, 0.5),
    Fault.FILL_DISK: (1.0, 2.0),
}
"""The range of the duration of each fault that has one."""


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a plan."""

    fault: Fault
    after: int
    """It comes when so many lives have begun."""
    replica: int
    amount: float
    """Seconds that it lasts, or by which it steps the clock."""

    def __str__(self) -> str:
        """Return one line."""
        return f"after {self.after} lives: {self.fault} (replica {self.replica}, {self.amount:.1f})"


def plan(seed: int, lives: int, numbers: Mapping[Fault, int], replicas: int) -> Sequence[Planned]:
    """Return a plan: the same for the same arguments."""
    dice = random.Random(f"plan {seed}")
    faults = [fault for fault, number in numbers.items() for _ in range(number)]
    dice.shuffle(faults)
    pause = lives / (len(faults) + 1)
    return [
        Planned(
            fault,
            after=int(pause * (position + dice.uniform(0.5, 1.5))),
            replica=dice.randrange(replicas),
            amount=_amount(fault, dice),
        )
        for position, fault in enumerate(faults)
    ]


def _amount(fault: Fault, dice: random.Random) -> float:
    if fault is Fault.STEP_CLOCK:
        return dice.choice(CLOCK_STEPS_S)
    return dice.uniform(*SECONDS.get(fault, (0.0, 0.0)))


class Nemesis:
    """Carries out a plan while lives begin."""

    def __init__(self, fleet: Fleet, planned: Sequence[Planned]) -> None:
        self._fleet = fleet
        self._left = list(planned)
        self._begun = 0
        self._moved = asyncio.Event()
        self._passed = asyncio.Event()
        self.done: Counter[Fault] = Counter()

    async def begin_life(self, number: int) -> None:
        """Count a life that begins; it waits while the next fault is late."""
        while self._left and number > self._left[0].after + MAX_AHEAD:
            self._passed.clear()
            await self._passed.wait()
        self._begun += 1
        self._moved.set()

    async def run(self) -> None:
        """Cause every fault when its time has come."""
        while self._left:
            planned = self._left[0]
            while self._begun < planned.after:
                self._moved.clear()
                await self._moved.wait()
            await CAUSES[planned.fault](self._fleet, planned)
            self.done[planned.fault] += 1
            self._left.pop(0)
            self._passed.set()


async def _kill_replica(fleet: Fleet, planned: Planned) -> None:
    await fleet.replicas[planned.replica].restart(gently=False)


async def _drain_replica(fleet: Fleet, planned: Planned) -> None:
    await fleet.replicas[planned.replica].restart(gently=True)


async def _freeze_replica(fleet: Fleet, planned: Planned) -> None:
    with fleet.replicas[planned.replica].frozen():
        await asyncio.sleep(planned.amount)


async def _cut_clients(fleet: Fleet, planned: Planned) -> None:
    replica = fleet.replicas[planned.replica]
    await _cut(planned, replica.grpc_pipe, replica.http_pipe)


async def _cut_database(fleet: Fleet, planned: Planned) -> None:
    replica = fleet.replicas[planned.replica]
    await _cut(planned, replica.database_pipe)


async def _cut(planned: Planned, *pipes: Pipe) -> None:
    for each in pipes:
        each.cut()
    try:
        await asyncio.sleep(planned.amount)
    finally:
        for each in pipes:
            each.heal()


async def _end_sessions(fleet: Fleet, _planned: Planned) -> None:
    await asyncio.to_thread(fleet.database.end_sessions)


async def _kill_session(fleet: Fleet, _planned: Planned) -> None:
    await asyncio.to_thread(fleet.database.kill_session)


async def _kill_database(fleet: Fleet, planned: Planned) -> None:
    await asyncio.to_thread(fleet.database.cluster.kill)
    await asyncio.sleep(planned.amount)
    await asyncio.to_thread(fleet.database.cluster.start)


async def _fill_disk(fleet: Fleet, planned: Planned) -> None:
    with fleet.database.full_disk():
        await asyncio.sleep(planned.amount)
    await asyncio.to_thread(fleet.database.ensure_running)


async def _step_clock(fleet: Fleet, planned: Planned) -> None:
    fleet.replicas[planned.replica].step_clock(planned.amount)


CAUSES: Final[Mapping[Fault, Callable[[Fleet, Planned], Awaitable[None]]]] = {
    Fault.KILL_REPLICA: _kill_replica,
    Fault.DRAIN_REPLICA: _drain_replica,
    Fault.FREEZE_REPLICA: _freeze_replica,
    Fault.CUT_CLIENTS: _cut_clients,
    Fault.CUT_DATABASE: _cut_database,
    Fault.END_SESSIONS: _end_sessions,
    Fault.KILL_SESSION: _kill_session,
    Fault.KILL_DATABASE: _kill_database,
    Fault.FILL_DISK: _fill_disk,
    Fault.STEP_CLOCK: _step_clock,
}
