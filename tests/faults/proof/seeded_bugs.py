"""Bugs that the proof must find, each seeded into a replica by one patch of the service.

A patch replaces one function or setting before the service starts. `hunts` has, for each bug, the
lives and faults that bring it to light.
"""

import asyncio
import importlib
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

WINDOW_S: Final = 0.05
"""Time in which a fault meets a bug that needs one at the wrong moment."""
LONG_WINDOW_S: Final = 0.3
"""The same for a fault that hits only one replica."""
CACHE_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug."""

    name: str
    text: str
    seed: Callable[[float], None]
    """Puts it into this process; takes the seconds by which the local clock is ahead."""


def _module(name: str) -> Any:
    return importlib.import_module(f"milepost.{name}")


def _reply_before_commit(_ahead_s: float) -> None:
    batcher = _module("storage.batching").Batcher
    run = batcher._run

    def run_late(self: Any) -> None:
        if threading.current_thread().name != "milepost-writes":
            run(self)
            return
        while (batch := self._batches.get()) is not None:
            try:
                self._session.cursor.execute("BEGIN")
                results = self._results(batch)
                self._answered = batch
                self._loop.call_soon_threadsafe(self._settle, results)
                time.sleep(WINDOW_S)
                self._session.cursor.execute("COMMIT")
            except Exception as error:  # noqa: BLE001 - it answered already
                self._session.failed(error)

    batcher._run = run_late


def _delivery_outside(_ahead_s: float) -> None:
    writer = _module("storage.event_writer").EventWriter
    run, insert = writer.run, writer._insert_delivery

    def insert_none(self: Any, changed: Any) -> Any:
        return insert(self, {**dict(changed), "callback_url": sa.cast(sa.null(), sa.Text)})

    def run_then_insert(self: Any, cursor: Any, rows: Sequence[Any]) -> Any:
        changed = run(self, cursor, rows)
        with_callback = [(row[0], row[_REVISION]) for row in changed if row[_CALLBACK_URL]]
        if with_callback and self._event in _CALLBACK_EVENTS:
            time.sleep(LONG_WINDOW_S)
            for operation_id, revision in with_callback:
                cursor.execute(_INSERT_DELIVERY, (operation_id, revision))
        return changed

    writer._insert_delivery, writer.run = insert_none, run_then_insert


_REVISION: Final = 21
_CALLBACK_URL: Final = 13
_CALLBACK_EVENTS: Final = ("operation.completed", "operation.failed", "operation.cancelled")
_INSERT_DELIVERY: Final = """
INSERT INTO deliveries (id, operation_id, revision, type, owner, callback_url, create_time, host,
    next_attempt_time)
SELECT 'msg_' || replace(gen_random_uuid()::text, '-', ''), e.operation_id, e.revision, e.type,
    o.owner, o.callback_url, now(), split_part(split_part(o.callback_url, '://', 2), '/', 1), now()
FROM events e JOIN operations o ON o.id = e.operation_id
WHERE e.operation_id = $1::text AND e.revision = $2::bigint
"""


def _no_status_condition(_ahead_s: float) -> None:
    statements = _module("storage.statements")
    conditions = statements._may_transition

    def without_status(m: Any, sources: Any) -> Any:
        found = conditions(m, sources)
        return (found[0], *found[2:])

    statements._may_transition = without_status


def _local_clock(ahead_s: float) -> None:
    dialects = _module("storage.dialects")
    ahead = sa.literal(timedelta(seconds=ahead_s), dialects.Span())

    def later(instant: Any, span: Any) -> Any:
        return dialects.later(dialects.later(instant, span), ahead)

    _module("storage.claim_statement").later = later


def _asynchronous_commit(_ahead_s: float) -> None:
    os.environ["MILEPOST_ALLOW_DATA_LOSS"] = "true"  # otherwise the service refuses to start
    _module("storage.session_settings").SETTINGS["synchronous_commit"] = "off"


def _lost_update(_ahead_s: float) -> None:
    store = _module("storage.operations").SqlOperationStore
    alone = _module("storage.batchers").alone
    result = _module("domain.transitions").TransitionResult
    apply = store.apply

    async def read_then_write(self: Any, request: Any, *more: Any) -> Any:
        if request.transition != "progress":
            return await apply(self, request, *more)
        found = await self.get(request.id, request.access_filter)
        if found.status != "PROCESSING":
            return await apply(self, request, *more)
        await asyncio.sleep(WINDOW_S)

        def write(session: Any) -> None:
            session.cursor.execute(
                "UPDATE operations SET progress = $1, progress_time = statement_timestamp(),"
                " lease_expire_time = statement_timestamp() + lease, revision = $2::bigint"
                " WHERE id = $3",
                (request.progress, found.revision + 1, request.id),
            )

        await self._batchers.writes.submit(alone(write), None, object())
        return result(await self.get(request.id, request.access_filter))

    store.apply = read_then_write


def _watch_skips_one(_ahead_s: float) -> None:
    history = _module("storage.history")
    changes = history.status_changes
    history.status_changes = lambda id_, after, before, limit: changes(
        id_, after + 1, before, limit
    )


def _watch_repeats_one(_ahead_s: float) -> None:
    watch = _module("tracking.watcher").Watch
    begin = watch.__init__

    def begin_one_before(self: Any, watcher: Any, id_: Any, access: Any, after: int) -> None:
        begin(self, watcher, id_, access, max(0, after - 1))

    watch.__init__ = begin_one_before


def _dedupe_without_owner(_ahead_s: float) -> None:
    creation = _module("storage.creation").Creation
    rows, domain = _module("storage.rows"), _module("domain.transitions")
    operations = _module("storage.tables").operations
    insert = creation.insert

    def insert_unless_known(self: Any, session: Any, new: Sequence[Any]) -> Any:
        results: list[Any] = []
        for operation_id, create in new:
            query = sa.select(*rows.COLUMNS).where(operations.c.request_id == create.request_id)
            found = session.fetch(query.limit(1))
            results += (
                [domain.TransitionResult(rows.operation_from(found[0]), replayed=True)]
                if found
                else insert(self, session, [(operation_id, create)])
            )
        return results

    creation.insert = insert_unless_known


def _no_renewal(_ahead_s: float) -> None:
    effects, statements = _module("storage.effects"), _module("storage.statements")
    progress = effects.progress

    def without_lease(m: Any) -> Any:
        return {name: value for name, value in progress(m).items() if name != "lease_expire_time"}

    effects.progress = statements.progress = without_lease


def _settled_without_lease(_ahead_s: float) -> None:
    settlements = _module("storage.settlements")
    update = settlements.SettleStatement._update

    def of_any(self: Any, m: Any) -> Any:
        whole = update(self, m)
        whole._where_criteria = whole._where_criteria[:1]
        return whole

    settlements.SettleStatement._update = of_any


def _quota_kept(_ahead_s: float) -> None:
    quotas = _module("storage.quotas")
    operations = _module("storage.tables").operations

    def count_all(owner: str, max_operations: int) -> Any:
        one: Any = sa.literal_column("1").label("one")
        created = sa.select(one).where(operations.c.owner == owner).limit(max_operations)
        return sa.select(sa.func.count()).select_from(created.subquery())

    quotas.count_active = count_all


def _event_missing(_ahead_s: float) -> None:
    writer = _module("storage.event_writer").EventWriter
    insert = writer._insert_event

    def insert_most(self: Any, changed: Any, m: Any, *joined: Any) -> Any:
        more = (sa.false(),) if self._transition == "release" else ()
        return insert(self, changed, m, *joined, *more)

    writer._insert_event = insert_most


def _stale_cache(_ahead_s: float) -> None:
    store = _module("storage.operations").SqlOperationStore
    get = store.get
    cached: dict[Any, tuple[float, Any]] = {}

    async def get_cached(self: Any, id_: Any, access: Any) -> Any:
        since, found = cached.get((id_, access), (0.0, None))
        if time.monotonic() - since > CACHE_S:
            found = await get(self, id_, access)
            cached[id_, access] = time.monotonic(), found
        return found

    store.get = get_cached


def _no_fence(_ahead_s: float) -> None:
    statements = _module("storage.statements")
    values = statements.condition_values
    statements.condition_values = lambda request: (*values(request)[:-1], None)


def _never_woken(_ahead_s: float) -> None:
    work = _module("storage.work")
    due = _module("domain.claim").DueWork

    async def wake_none(_self: Any, _max_operations: int) -> Any:
        return due()

    work.SqlWorkStore.wake_due = wake_none


def _new_webhook_id(_ahead_s: float) -> None:
    attempts = _module("webhooks.attempts")
    headers = attempts.signed_headers
    attempts.signed_headers = lambda keys, _id, when, body: headers(
        keys, f"msg_{uuid.uuid4().hex}", when, body
    )


BUGS: Final[Mapping[str, Bug]] = {
    bug.name: bug
    for bug in (
        Bug("reply-before-commit", "a change is answered before its commit", _reply_before_commit),
        Bug("delivery-outside", "a delivery is inserted after the commit", _delivery_outside),
        Bug("no-status-condition", "an update ignores the status", _no_status_condition),
        Bug("local-clock", "a claim sets its lease by the local clock", _local_clock),
        Bug("asynchronous-commit", "synchronous_commit is off", _asynchronous_commit),
        Bug("lost-update", "progress is read, changed and written", _lost_update),
        Bug("watch-skips-one", "a watch begins one change too late", _watch_skips_one),
        Bug("watch-repeats-one", "a watch begins one change too early", _watch_repeats_one),
        Bug("dedupe-without-owner", "request_ids are those of all owners", _dedupe_without_owner),
        Bug("no-renewal", "progress does not renew the lease", _no_renewal),
        Bug("settled-without-lease", "any attempt settles a delivery", _settled_without_lease),
        Bug("quota-kept", "ended operations count for the quota", _quota_kept),
        Bug("event-missing", "a release has no event", _event_missing),
        Bug("stale-cache", "a read comes from a cache", _stale_cache),
        Bug("no-fence", "the attempt of a call is ignored", _no_fence),
        Bug("never-woken", "a retry is never claimable again", _never_woken),
        Bug("new-webhook-id", "each attempt has an id of its own", _new_webhook_id),
    )
}
