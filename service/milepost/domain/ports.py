"""What the use cases need from the outside, as the storage must provide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from datetime import datetime, timedelta

    from milepost.domain.interruption import Standing
    from milepost.domain.lifecycle import Change, Move
    from milepost.domain.operation import Draft, Operation, OperationId, Principal, Scope, Status


@dataclass(frozen=True, slots=True)
class Outcome:
    """An operation as a move left it, or as an earlier call with this request_id left it."""

    operation: Operation
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which operations to list. Empty or absent means: no condition."""

    statuses: tuple[Status, ...] = ()
    function: str | None = None
    owner: str | None = None
    create_time_from: datetime | None = None
    """Inclusive."""
    create_time_to: datetime | None = None
    """Exclusive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A place between two operations of a list, newest first."""

    create_time: datetime
    id: OperationId


class OperationStore(Protocol):
    """Where operations live.

    Every method may raise `StoreUnavailable` within a second when the database is away, and
    `Overloaded` at once when too many calls wait already. A caller that is cancelled while it
    waits neither loses nor undoes a change that was taken: the change is committed or not, as a
    whole.
    """

    async def insert(self, operation_id: OperationId, draft: Draft) -> Outcome | None:
        """Store `draft` as a pending operation at revision 1, with its event.

        Nothing is returned when the id is taken: try another. If a living operation of the
        same owner has the same request_id, that operation is returned as replayed.

        Raises:
            RequestIdReused: that operation was created with other content.
        """

    async def apply(self, change: Change) -> Outcome:
        """Make one move, its event and its deliveries durable together, or change nothing.

        The move is one conditional update; reading first never decides it. A repeated move
        (same operation, move, request_id and actor) returns the operation as replayed.

        Raises:
            OperationNotFound: there is none inside the scope.
            RevisionMismatch, StaleAttempt, IllegalMove, ProgressDecrease: as the table says.
            LostRace: other changes came first three times in a row.
        """

    async def forget(self, change: Change) -> None:
        """Remove a terminal operation; only its events remain.

        Returns also when this very call (same request_id and actor) has removed it before.

        Raises:
            As `apply`.
        """

    async def get(self, operation_id: OperationId, scope: Scope) -> Operation:
        """Return the operation as last committed.

        Raises:
            OperationNotFound: there is none inside the scope. `OperationExpired` and
                `OperationDeleted` are told only to the owner.
        """

    async def list(
        self, scope: Scope, selection: Selection, after: Position | None, limit: int, *, full: bool
    ) -> list[Operation]:
        """Return up to `limit` operations, newest first by (create_time, id), after a position.

        Without `full`, result, errors and metadata are left out and not even read.
        """

    async def standings(self, operation_ids: Sequence[OperationId]) -> Sequence[Standing]:
        """Return how each of these operations stands, in any order; one that is gone is left out.

        Within no scope: for those who have moved the operations before. Up to some hundred ids.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What one worker asks to be given."""

    functions: tuple[str, ...]
    """Exact names."""
    most: int
    """Operations, at least 1."""
    lease: timedelta
    actor: str
    """The subject that asks."""
    worker: str


class WorkStore(Protocol):
    """Where workers find work. Raises what `OperationStore` raises."""

    async def claim(self, claim: Claim) -> list[Operation]:
        """Lease up to `most` pending operations to one worker; none if there are none.

        No operation goes to two workers. Owners take turns: a busy one does not keep others from
        being served.
        """

    async def pending(self, functions: Collection[str]) -> list[str]:
        """Return those of `functions` that have work to be claimed."""


class SweepStore(Protocol):
    """Where what is due is done. The clock of the database decides what that is."""

    async def sweep(self, move: Move, most: int) -> list[Operation]:
        """Make one of the sweeper's moves of up to `most` operations that are due.

        Returns them as the move left them (as they were, if it removed them), without payloads.
        What another sweeper has in its hands is passed over.
        """

    async def forget_events(self, kept: timedelta, most: int) -> int:
        """Remove the events of up to `most` operations that were removed longer ago than `kept`."""

    async def due(self, move: Move) -> int:
        """Return how many operations a sweep would move now."""

    async def overdue(self, move: Move, since: timedelta, most: int) -> int:
        """Return how many operations have been due for longer than `since`, counted to `most`."""


class CredentialStore(Protocol):
    """Where API keys live. Only digests of secrets are ever kept."""

    async def find_key(self, key_id: str) -> StoredKey | None:
        """Return the key with this public id if it is neither revoked nor expired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """An API key as it is kept: who it speaks for, and the SHA-256 of the whole key."""

    principal: Principal
    digest: bytes
