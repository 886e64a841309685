"""What the use cases need from the outside, as the storage must provide it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from milepost.domain.api_key import ApiKey, KeyProposal, KeySelection
    from milepost.domain.lifecycle import Change
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
    """A place between two items of a list, newest first."""

    create_time: datetime
    id: str


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


class CredentialStore(Protocol):
    """Where API keys live. Only digests of secrets are ever kept."""

    async def find_key(self, key_id: str) -> StoredKey | None:
        """Return the key with this public id if it is neither revoked nor expired."""


class KeyStore(Protocol):
    """Where admins look after API keys. Errors of the database are as in `OperationStore`."""

    async def add_key(self, key: StoredKey, proposal: KeyProposal, *, creator: str) -> KeyOutcome:
        """Store a key of this proposal: it is valid from now on.

        If the same creator has used the proposal's request_id before, the key of that time is
        returned as replayed, and nothing is stored.

        Raises:
            RequestIdReused: that key was created with other content.
            InvalidRequest: its expire_time is not in the future.
        """

    async def list_keys(
        self, selection: KeySelection, after: Position | None, limit: int
    ) -> list[ApiKey]:
        """Return up to `limit` keys, newest first by (create_time, key_id), after a position."""

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Make a key worthless for good; doing it twice changes nothing.

        Raises:
            ApiKeyNotFound: there is no such key.
        """

    async def record_key_use(self, key_ids: Iterable[str]) -> None:
        """Note that these keys were used just now, at most once a minute for each."""


@dataclass(frozen=True, slots=True)
class KeyOutcome:
    """A key as a create left it, or as an earlier call with this request_id left it."""

    key: ApiKey
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredKey:
    """An API key as it is kept: who it speaks for, and the SHA-256 of the whole key."""

    principal: Principal
    digest: bytes
