"""The ports: interfaces of the use cases that storage and webhooks implement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
    from datetime import timedelta

    from milepost.domain.api_key import (
        ApiKey,
        CreateKeyRequest,
        CreateKeyResult,
        KeySelection,
        StoredKey,
    )
    from milepost.domain.claim import ClaimRequest, DueWork
    from milepost.domain.delivery import (
        ClaimedDelivery,
        Delivery,
        DeliveryClaim,
        DeliverySelection,
        Probe,
        SealedSecret,
        Settlement,
    )
    from milepost.domain.event_days import EventDays
    from milepost.domain.history import Event, StatusChange
    from milepost.domain.interruption import StatusSnapshot
    from milepost.domain.operation import (
        AccessFilter,
        NewOperation,
        Operation,
        OperationId,
    )
    from milepost.domain.pages import Page
    from milepost.domain.rates import BucketKey, Rate
    from milepost.domain.selection import Position, Selection
    from milepost.domain.sweep import Sweep
    from milepost.domain.transitions import TransitionRequest, TransitionResult
    from milepost.domain.workload import Workload


def ignore(_result: object) -> None:
    """Do nothing with a result whose caller has given up."""


class OperationStore(Protocol):
    """Store of operations.

    Every method may raise `StoreUnavailable` within a second when the database is unavailable, and
    `Overloaded` at once when too many calls wait. Cancelling a waiting caller neither loses nor
    undoes a change in progress: it is committed as a whole or not at all. If it is committed after
    its caller was cancelled, or got `StoreUnavailable`, its result is passed to `on_abandoned`.
    """

    async def insert(
        self,
        operation_id: OperationId,
        new_operation: NewOperation,
        on_abandoned: Callable[[TransitionResult | None], None] = ignore,
    ) -> TransitionResult | None:
        """Store `new_operation` as a pending operation at revision 1, with its event.

        Returns None when the id is taken: try another one. If a live operation of the same owner
        has the same request_id, that operation is returned as replayed.

        Raises:
            RequestIdReused: that operation was created with other content.
            QuotaExceeded: the owner has as many active operations as `new_operation.quota`,
                counted exactly, also with concurrent creates.
        """

    async def apply(
        self, request: TransitionRequest, on_abandoned: Callable[[TransitionResult], None] = ignore
    ) -> TransitionResult:
        """Commit one transition with its event and its deliveries, or change nothing.

        The transition is one conditional update; an earlier read never decides it. A retry (same
        operation, transition, request_id and actor) returns the operation as replayed.

        Raises:
            OperationNotFound: the access filter has no such operation.
            RevisionMismatch, StaleAttempt, IllegalTransition, ProgressDecrease: as the table says.
            LostRace: other changes came first, three times in a row.
        """

    async def delete(
        self, request: TransitionRequest, on_abandoned: Callable[[TransitionResult], None] = ignore
    ) -> TransitionResult | None:
        """Remove a terminal operation; only its events remain. Returns its last state.

        A retry (same request_id and actor) returns None.

        Raises:
            As `apply`.
        """

    async def get(self, operation_id: OperationId, access_filter: AccessFilter) -> Operation:
        """Return the operation as last committed.

        Raises:
            OperationNotFound: the access filter has no such operation. Only the owner gets
                `OperationExpired` or `OperationDeleted` instead.
        """

    async def list(
        self,
        access_filter: AccessFilter,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        full: bool,
        max_bytes: int,
    ) -> Page[Operation]:
        """Return up to `limit` operations, newest first by (create_time, id), after a position.

        Only as many as fit into `max_bytes`, but at least one. No more are read. Without `full`,
        result, errors and metadata are not read.
        """

    async def status_snapshots(
        self, operation_ids: Sequence[OperationId]
    ) -> Sequence[StatusSnapshot]:
        """Return the snapshots of these operations, in any order; missing ones are left out.

        Without an access filter: for callers that have changed the operations before. Up to some
        hundred ids.
        """


class WorkStore(Protocol):
    """Store of pending work. Raises as `OperationStore` does."""

    async def claim(
        self, claim: ClaimRequest, on_abandoned: Callable[[list[Operation]], None] = ignore
    ) -> list[Operation]:
        """Lease up to `claim.max_operations` pending operations to one worker.

        Only as many as fit into `claim.max_bytes`, but at least one, if there is work.

        No operation goes to two workers. Owners take turns: a busy owner does not starve others.
        """

    async def pending(self, functions: Collection[str]) -> list[str]:
        """Return those of `functions` that have claimable operations."""

    async def wake_due(self, max_operations: int) -> DueWork:
        """Make up to `max_operations` waiting operations claimable whose time has come.

        It is not a transition: the revision stays, and there is no event.
        """


class SweepStore(Protocol):
    """Store of the sweeper. The clock of the database decides what is due."""

    async def sweep(self, sweep: Sweep, max_operations: int) -> list[Operation]:
        """Make the transition of `sweep` in up to `max_operations` due operations.

        They may be fewer although more are due, so that others can write. Returns them as the
        transition left them (as they were, if it removed them), without payloads. Operations that
        another sweeper has locked are skipped.
        """

    async def purge_events(self, kept: timedelta, max_operations: int) -> int:
        """Remove the events of operations that were removed longer ago than `kept`, row by row.

        Returns the number of operations, which may be fewer than `max_operations` although more are
        left; 0 at the end. Events in days of their own are left to `keep_event_days`.
        """

    async def keep_event_days(self, kept: timedelta) -> EventDays:
        """Make the days of the next events, and drop the days that ended longer ago than `kept`.

        Events of operations that still exist are kept. Does nothing on a store without days.
        """

    async def due(self, sweep: Sweep) -> int:
        """Return the number of operations that a sweep would change now."""

    async def overdue(self, sweep: Sweep, since: timedelta, max_operations: int) -> int:
        """Return the number of operations due for longer than `since`, up to `max_operations`."""

    async def spared(self, max_operations: int) -> int:
        """Return the number of expired leases, up to `max_operations`, that are not swept yet.

        After an interruption in which no replica took renewals, a lease is swept only after its
        holder had one full lease to renew it.
        """

    async def note_serving(self) -> timedelta | None:
        """Store that renewals can be taken now.

        Returns the length of the interruption that ends with it, or None without one.
        """


class WorkloadStore(Protocol):
    """Store of the metrics of active work. Raises as `OperationStore` does."""

    async def workload(self, max_functions: int, max_operations: int) -> Workload:
        """Return the workload of the first `max_functions` functions by name.

        Of each status, up to `max_operations` operations are counted, the same number for each
        function. The clock of the database measures the ages, of a part of these operations.
        """


class HistoryStore(Protocol):
    """Store of revisions and status changes. Raises as `OperationStore` does."""

    async def revisions(self, ids: Sequence[OperationId]) -> Mapping[OperationId, int]:
        """Return the revisions of those operations that exist and have not expired."""

    async def status_changes(
        self, operation_id: OperationId, *, after: int, before: int, limit: int
    ) -> Sequence[StatusChange]:
        """Return the oldest `limit` status changes between two revisions, exclusively."""

    async def events(
        self, operation_id: OperationId, *, after: int, limit: int, max_bytes: int
    ) -> Page[Event]:
        """Return the oldest `limit` events of an operation after a revision, or as many as fit."""


class CredentialStore(Protocol):
    """Store of API keys for authentication. Only digests of keys are stored."""

    async def find_key(self, key_id: str) -> StoredKey | None:
        """Return the key with this public id if it is neither revoked nor expired."""

    async def good_keys(self, key_ids: Collection[str]) -> Collection[str]:
        """Return those of the keys that are neither revoked nor expired, as last committed."""


class KeySetSource(Protocol):
    """Where the public keys of an issuer of tokens are published."""

    async def fetch(self) -> bytes:
        """Return the JWK set as it is published now.

        Raises:
            OSError: it cannot be fetched; the text says why, and may be logged.
        """


class LeaseRegister(Protocol):
    """Register of the leases that this replica granted and renewed."""

    def record(self, subject: str, operation: Operation) -> None:
        """Record the lease of an operation that `subject` has changed; drop one that has ended."""


class RateLimiter(Protocol):
    """Token buckets of rate limits."""

    async def take(self, key: BucketKey, rate: Rate) -> float:
        """Take a token if there is one; return 0, or the seconds until the next token."""


class KeyStore(Protocol):
    """Store of API keys for admins. Raises as `OperationStore` does."""

    async def add_key(
        self, key: StoredKey, create_request: CreateKeyRequest, *, creator: str
    ) -> CreateKeyResult:
        """Store `key` with this content; it is valid from now on.

        If the same creator has used the request_id before, the key of that call is returned as
        replayed, and nothing is stored.

        Raises:
            RequestIdReused: that key was created with other content.
            InvalidRequest: its expire_time is not in the future.
        """

    async def list_keys(
        self, selection: KeySelection, after: Position | None, limit: int
    ) -> list[ApiKey]:
        """Return up to `limit` keys, newest first by (create_time, key_id), after a position."""

    async def revoke_key(self, key_id: str) -> ApiKey:
        """Revoke a key for good; a second call changes nothing.

        Raises:
            ApiKeyNotFound: the key does not exist.
        """

    async def record_key_use(self, key_ids: Iterable[str]) -> None:
        """Record that these keys were used now, at most once a minute for each."""


# --- webhooks ---


class DeliveryStore(Protocol):
    """Store of deliveries, which the transitions of `OperationStore` write.

    Every method may raise `StoreUnavailable` and `Overloaded`, as those of `OperationStore`.
    """

    async def claim(self, request: DeliveryClaim) -> list[ClaimedDelivery]:
        """Lease due deliveries to this dispatcher only, within the limits of the request.

        A delivery whose lease expires is due again.
        """

    async def settle(self, settlement: Settlement) -> bool:
        """Record an attempt and the state of its delivery; return False if its lease is lost."""

    async def deliveries(
        self, owner: str, selection: DeliverySelection, after: Position | None, limit: int
    ) -> list[Delivery]:
        """Return up to `limit` deliveries, newest first, with every attempt, after a position."""

    async def redeliver(
        self, owner: str, delivery_id: str, request_id: str | None
    ) -> tuple[Delivery, bool]:
        """Make a settled delivery due again; the flag is True for a retry of this call.

        Raises:
            DeliveryNotFound: `owner` has no such delivery.
            IllegalTransition: the delivery is not settled.
        """

    async def purge_deliveries(self, kept: timedelta) -> int:
        """Remove deliveries of missing operations that were settled longer ago than `kept`."""


class SecretStore(Protocol):
    """Store of encrypted signing secrets. Raises as `OperationStore` does."""

    async def secrets(self, owner: str) -> Sequence[SealedSecret]:
        """Return the secrets of `owner` that sign now, the current one first."""

    async def first_secret(self, owner: str, key_id: str, sealed: bytes) -> None:
        """Store the first secret of `owner`, unless one exists."""

    async def rotate_secret(
        self, owner: str, key_id: str, sealed: bytes, request_id: str | None, overlap: timedelta
    ) -> bool:
        """Replace the current secret, which signs for `overlap` more; end the previous one now.

        Returns False for a retry of a rotation, which changes nothing. Concurrent rotations run
        one after the other.
        """


class SecretVault(Protocol):
    """Encryption of signing secrets with the operator's master keys."""

    def seal(self, owner: str, secret: bytes) -> tuple[str, bytes]:
        """Return the id of the master key and the encrypted secret."""

    def unseal(self, secret: SealedSecret) -> bytes:
        """Return the decrypted secret.

        Raises:
            WebhooksNotConfigured: its master key is not configured.
        """


class Callbacks(Protocol):
    """The part of webhook delivery that a create with a callback URL needs."""

    async def check(self, callback_url: str) -> None:
        """Check that webhooks may be sent to this URL, within 2 s.

        Raises:
            InvalidRequest: the URL is refused; the violation names ``callback_url``.
        """

    async def prepare(self, owner: str) -> None:
        """Create the secret that signs the webhooks of `owner`, unless it exists."""

    def wake(self) -> None:
        """Wake the dispatcher: this replica has written a delivery."""


class Prober(Protocol):
    """Sender of test webhooks."""

    async def probe(self, owner: str, callback_url: str, keys: Sequence[bytes]) -> Probe:
        """Send a signed test webhook to a URL, under all rules for webhooks; return the attempt.

        Raises:
            InvalidRequest: the URL is refused; nothing was contacted.
        """
