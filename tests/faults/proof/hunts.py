"""The hunt for each seeded bug: lives and faults that bring it to light, and what is found."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from tests.faults.proof.lives import CALLBACK
from tests.faults.proof.nemesis import Fault
from tests.faults.proof.run import Size
from tests.faults.proof.violations import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Hunt:
    """A short run in which a bug must show itself."""

    finds: frozenset[Kind]
    """The violations of which at least one must be found."""
    lives: int = 80
    kinds: tuple[str, ...]
    faults: Mapping[Fault, int] = field(default_factory=dict)
    clock_s: float = 0.0
    hanging: float = 0.0
    callbacks: float = CALLBACK
    freeze_s: float | None = None
    settle_s: float = 12.0
    """Longer than all leases, so that only the bug leaves anything."""

    @property
    def size(self) -> Size:
        """The size of its run."""
        return Size(
            lives=self.lives,
            faults=self.faults,
            kinds=self.kinds,
            clock_s=self.clock_s,
            hanging=self.hanging,
            callbacks=self.callbacks,
            freeze_s=self.freeze_s,
            settle_s=self.settle_s,
        )


SERVER_SETTINGS: Final = {"wal_writer_delay": "10s"}
"""Settings of PostgreSQL, under which a commit that does not wait for the disk stays in memory."""
HUNTS: Final[Mapping[str, Hunt]] = {
    "reply-before-commit": Hunt(
        finds=frozenset({Kind.LOST, Kind.STALE, Kind.PHANTOM}), kinds=("plain",)
    ),
    "delivery-outside": Hunt(
        finds=frozenset({Kind.UNTOLD}),
        kinds=("raced", "cancelled"),
        lives=120,
        faults={Fault.KILL_REPLICA: 3},
        callbacks=1.0,
    ),
    "no-status-condition": Hunt(finds=frozenset({Kind.ILLEGAL, Kind.TWO_ENDS}), kinds=("raced",)),
    "local-clock": Hunt(finds=frozenset({Kind.LEASE}), kinds=("claimed",), clock_s=300.0),
    "asynchronous-commit": Hunt(
        finds=frozenset({Kind.LOST}),
        kinds=("plain",),
        faults={Fault.KILL_DATABASE: 2},
    ),
    "lost-update": Hunt(finds=frozenset({Kind.REPEATED, Kind.LOST}), kinds=("cancelled",)),
    "watch-skips-one": Hunt(finds=frozenset({Kind.WATCH_GAP}), kinds=("raced", "deleted")),
    "watch-repeats-one": Hunt(
        finds=frozenset({Kind.WATCH_REPEAT, Kind.WATCH_GAP}),
        kinds=("plain",),
        faults={Fault.CUT_CLIENTS: 1, Fault.KILL_REPLICA: 1},
    ),
    "dedupe-without-owner": Hunt(finds=frozenset({Kind.OWNER}), kinds=("plain",), lives=20),
    "no-renewal": Hunt(finds=frozenset({Kind.LEASE, Kind.SWEPT}), kinds=("claimed",)),
    "settled-without-lease": Hunt(
        finds=frozenset({Kind.SETTLED}),
        kinds=("raced",),
        lives=160,
        faults={Fault.FREEZE_REPLICA: 2},
        hanging=0.5,
        callbacks=1.0,
        freeze_s=11.0,
    ),
    "quota-kept": Hunt(finds=frozenset({Kind.QUOTA}), kinds=("crowded",)),
    "event-missing": Hunt(finds=frozenset({Kind.ILLEGAL, Kind.LOST}), kinds=("claimed",)),
    "stale-cache": Hunt(finds=frozenset({Kind.STALE}), kinds=("plain",)),
    "no-fence": Hunt(finds=frozenset({Kind.ATTEMPT}), kinds=("late",)),
    "never-woken": Hunt(finds=frozenset({Kind.STUCK}), kinds=("claimed",)),
    "new-webhook-id": Hunt(finds=frozenset({Kind.WEBHOOK_ID}), kinds=("raced",)),
}
