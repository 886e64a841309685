"""What the use cases need from the outside, as the storage must provide it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence
    from datetime import timedelta

    from milepost.domain.api_key import (
        ApiKey,
        CreateKeyRequest,
        CreateKeyResult,
        KeySelection,
        StoredKey,
    )
    from milepost.domain.claim import ClaimRequest
    from milepost.domain.delivery import (
        ClaimedDelivery,
        Delivery,
        DeliverySelection,
        Probe,
        SealedSecret,
        Settlement,
    )
    from milepost.domain.history import StatusChange
    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import (
        AccessFilter,
        NewOperation,
        Operation,
        OperationId,
    )
    from milepost.domain.rates import BucketKey, Rate
    from milepost.domain.selection import Position, Selection
    from milepost.domain.transitions import Transition, TransitionRequest, TransitionResult


class OperationStore(Protocol):
    """Where operations live.

    Every method may raise `StoreUnavailable` within a second when the database is away, and
    `Overloaded` at once when too many calls wait already. A caller that is cancelled while it
    waits neither loses nor undoes a change that was taken: the change is committed or not, as a
    whole.
    """

    async def insert(
        self, operation_id: OperationId, new_operation: NewOperation
    ) -> TransitionResult | None:
        """Store `new_operation` as a pending operation at revision 1, with its event.

        Nothing is returned when the id is taken: try another. If a living operation of the
        same owner has the same request_id, that operation is returned as replayed.

        Raises:
            RequestIdReused: that operation was created with other content.
            QuotaExceeded: the owner has as many active operations as the draft's quota allows,
                counted exactly, however many are created at once.
        """

    async def apply(self, change: TransitionRequest) -> TransitionResult:
        """Make one transition, its event and its deliveries durable together, or change nothing.

        The transition is one conditional update; reading first never decides it. A repeated move
        (same operation, move, request_id and actor) returns the operation as replayed.

        Raises:
            OperationNotFound: there is none inside the scope.
            RevisionMismatch, StaleAttempt, IllegalTransition, ProgressDecrease: as the table says.
            LostRace: other changes came first three times in a row.
        """

    async def delete(self, change: TransitionRequest) -> None:
        """Remove a terminal operation; only its events remain.

        Returns also when this very call (same request_id and actor) has removed it before.

        Raises:
            As `apply`.
        """

    async def get(self, operation_id: OperationId, access_filter: AccessFilter) -> Operation:
        """Return the operation as last committed.

        Raises:
            OperationNotFound: there is none inside the scope. `OperationExpired` and
                `OperationDeleted` are told only to the owner.
        """

    async def list(
        self,
        access_filter: AccessFilter,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        full: bool,
    ) -> list[Operation]:
        """Return up to `limit` operations, newest first by (create_time, id), after a position.

        Without `full`, result, errors and metadata are left out and not even read.
        """

    async def status_snapshots(
        self, operation_ids: Sequence[OperationId]
    ) -> Sequence[StatusSnapshot]:
        """Return how each of these operations stands, in any order; one that is gone is left out.

        Within no scope: for those who have moved the operations before. Up to some hundred ids.
        """


class WorkStore(Protocol):
    """Where workers find work. Raises what `OperationStore` raises."""

    async def claim(self, claim: ClaimRequest) -> list[Operation]:
        """Lease up to `most` pending operations to one worker; none if there are none.

        No operation goes to two workers. Owners take turns: a busy one does not keep others from
        being served.
        """

    async def pending(self, functions: Collection[str]) -> list[str]:
        """Return those of `functions` that have work to be claimed."""


class SweepStore(Protocol):
    """Where what is due is done. The clock of the database decides what that is."""

    async def sweep(self, transition: Transition, most: int) -> list[Operation]:
        """Make one of the sweeper's transitions of up to `most` operations that are due.

        Returns them as the transition left them (as they were, if it removed them), without
        payloads. What another sweeper has in its hands is passed over.
        """

    async def purge_events(self, kept: timedelta, most: int) -> int:
        """Remove the events of up to `most` operations that were removed longer ago than `kept`."""

    async def due(self, transition: Transition) -> int:
        """Return how many operations a sweep would move now."""

    async def overdue(self, transition: Transition, since: timedelta, most: int) -> int:
        """Return how many operations have been due for longer than `since`, counted to `most`."""


class HistoryStore(Protocol):
    """Where it is written what has become of operations. Raises as `OperationStore` does."""

    async def revisions(self, ids: Sequence[OperationId]) -> Mapping[OperationId, int]:
        """Return the revisions of those operations that are there and have not expired."""

    async def status_changes(
        self, operation_id: OperationId, *, after: int, before: int, limit: int
    ) -> Sequence[StatusChange]:
        """Return the changes of status between two revisions, the oldest `limit` of them."""


class CredentialStore(Protocol):
    """Where API keys live. Only digests of secrets are ever kept."""

    async def find_key(self, key_id: str) -> StoredKey | None:
        """Return the key with this public id if it is neither revoked nor expired."""


class KeySetSource(Protocol):
    """Where the public keys of an issuer of tokens are published."""

    async def fetch(self) -> bytes:
        """Return the JWK set as it is published now.

        Raises:
            OSError: it cannot be fetched; the text says why, and may be logged.
        """


class RateLimiter(Protocol):
    """Where token buckets live."""

    async def take(self, key: BucketKey, rate: Rate) -> float:
        """Take one from a bucket if there is one; return 0, or the seconds until there is one."""


class KeyStore(Protocol):
    """Where admins look after API keys. Errors of the database are as in `OperationStore`."""

    async def add_key(
        self, key: StoredKey, create_request: CreateKeyRequest, *, creator: str
    ) -> CreateKeyResult:
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


# --- webhooks ---


class DeliveryStore(Protocol):
    """Where deliveries live. They are written by the transitions of `OperationStore`, not here.

    Every method may raise `StoreUnavailable` and `Overloaded`, as those of `OperationStore`.
    """

    async def claim(
        self, *, limit: int, per_host: int, busy: Collection[str], lease: timedelta
    ) -> list[ClaimedDelivery]:
        """Take up to `limit` due deliveries for `lease`; no other dispatcher gets them meanwhile.

        At most `per_host` of one host, and none of a `busy` host. A lease that runs out makes the
        delivery due again.
        """

    async def settle(self, settlement: Settlement) -> bool:
        """Record an attempt, and move its delivery on; false if the lease was lost meanwhile."""

    async def deliveries(
        self, owner: str, selection: DeliverySelection, after: Position | None, limit: int
    ) -> list[Delivery]:
        """Return up to `limit` deliveries, newest first, with every attempt, after a position."""

    async def redeliver(
        self, owner: str, delivery_id: str, request_id: str | None
    ) -> tuple[Delivery, bool]:
        """Make a settled delivery due again; the flag tells that this very call did so before.

        Raises:
            DeliveryNotFound: `owner` has none such.
            IllegalTransition: it is not settled.
        """

    async def purge_deliveries(self, kept: timedelta) -> int:
        """Remove deliveries of operations that are gone, `kept` after they were settled."""


class SecretStore(Protocol):
    """Where signing secrets live, encrypted. Raises as `OperationStore` does."""

    async def secrets(self, owner: str) -> Sequence[SealedSecret]:
        """Return the secrets of `owner` that sign now: the current one first, if there is any."""

    async def first_secret(self, owner: str, key_id: str, sealed: bytes) -> None:
        """Store the first secret of `owner`, unless there is one by now."""

    async def rotate_secret(
        self, owner: str, key_id: str, sealed: bytes, request_id: str | None, overlap: timedelta
    ) -> bool:
        """Replace the current secret, which signs on for `overlap`; end the one before at once.

        False means that a rotation with this request_id has been made, and nothing was done. Of
        rotations at once each replaces what the one before it made.
        """


class SecretVault(Protocol):
    """Encrypts signing secrets under the operator's master keys."""

    def seal(self, owner: str, secret: bytes) -> tuple[str, bytes]:
        """Return the id of the master key and the encrypted secret."""

    def unseal(self, secret: SealedSecret) -> bytes:
        """Return the secret.

        Raises:
            WebhooksNotConfigured: its master key is not among those that are configured.
        """


class Callbacks(Protocol):
    """What creating an operation with a callback URL needs of the sender of webhooks."""

    async def check(self, callback_url: str) -> None:
        """Return if webhooks may be sent to this URL; it takes 2 s at most.

        Raises:
            InvalidRequest: naming ``callback_url``.
        """

    def wake(self) -> None:
        """Take the hint that a delivery has been written on this replica."""


class Prober(Protocol):
    """Sends one webhook at once."""

    async def probe(self, owner: str, callback_url: str, keys: Sequence[bytes]) -> Probe:
        """Send a signed webhook to a URL under all rules for them, and say what came of it.

        Raises:
            InvalidRequest: the URL is refused; nothing was contacted.
        """
