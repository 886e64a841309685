"""The sizes of runs: the small one of `make test`, the full one of `make faults`, and any other."""

from dataclasses import replace
from typing import Final

from tests.faults.proof.nemesis import Fault
from tests.faults.proof.run import Size

SMALL_LIVES: Final = 100
FULL_LIVES: Final = 20_000
FULL_KILLS: Final = 200
FULL_DATABASE_KILLS: Final = 40
LIVES_PER_KILL: Final = 100
LIVES_PER_DATABASE_KILL: Final = 500
METADATA_BYTES: Final = 500

SMALL: Final = Size(
    lives=SMALL_LIVES,
    faults={
        Fault.KILL_REPLICA: 2,
        Fault.KILL_DATABASE: 1,
        Fault.END_SESSIONS: 1,
        Fault.CUT_DATABASE: 1,
        Fault.STEP_CLOCK: 1,
    },
    metadata_bytes=METADATA_BYTES,
)


def of(lives: int, kills: int | None = None, database_kills: int | None = None) -> Size:
    """Return a run of this many lives, with faults in proportion."""
    if kills is None:
        kills = max(1, lives // LIVES_PER_KILL)
    if database_kills is None:
        database_kills = max(1, lives // LIVES_PER_DATABASE_KILL)
    some = max(1, database_kills // 2)
    return Size(
        lives=lives,
        faults={
            Fault.KILL_REPLICA: kills,
            Fault.DRAIN_REPLICA: some,
            Fault.FREEZE_REPLICA: some,
            Fault.CUT_CLIENTS: some,
            Fault.CUT_DATABASE: some,
            Fault.END_SESSIONS: database_kills,
            Fault.KILL_SESSION: database_kills - database_kills // 2,
            Fault.KILL_DATABASE: database_kills // 2 or 1,
            Fault.FILL_DISK: max(1, some // 2),
            Fault.STEP_CLOCK: some,
        },
        metadata_bytes=METADATA_BYTES,
    )


FULL: Final = of(FULL_LIVES, FULL_KILLS, FULL_DATABASE_KILLS)


def without(size: Size, fault: Fault) -> Size:
    """Return the run without one kind of fault."""
    return replace(
        size, faults={each: number for each, number in size.faults.items() if each is not fault}
    )
