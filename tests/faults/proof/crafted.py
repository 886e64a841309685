"""A crafted run of one operation in which all is well, to be broken by tests of the checker."""

import dataclasses
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from milepost.domain.transitions import TABLE
from tests.faults.proof.checker import check, counts
from tests.faults.proof.history import Call, History, Outcome, Received, View, Watched
from tests.faults.proof.tables import Tables, timelines
from tests.faults.proof.violations import Kind

ID = "op_000000000000000000000001"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALICE, WORKER = "alice", "worker"
QUOTAS = {ALICE: 1}


@dataclass
class Run:
    """A run of one operation: claimed, released, claimed again, and completed, with a webhook."""

    history: History = field(default_factory=History)
    row: dict[str, Any] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    deliveries: list[dict[str, Any]] = field(default_factory=list)
    attempts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    reserved: dict[str, int] = field(default_factory=dict)

    def found(self) -> set[Kind]:
        """Return the kinds of violations that the checker finds."""
        rows = {self.row["id"]: self.row} if self.row else {}
        final = Tables(
            timelines=timelines(rows, self.events),
            deliveries=self.deliveries,
            attempts=self.attempts,
            reserved=self.reserved,
        )
        return {
            kind for kind, number in counts(check(self.history, final, QUOTAS)).items() if number
        }

    def end_by_sweep(self) -> None:
        """Let the lease of the last attempt run out instead of its completion."""
        failed = {"status": "FAILED", "revision": 6, "attempt": 2}
        self.row |= failed | {"progress": 0.5, "result_value": None}
        self.events[-1] |= {
            "transition": "abandon",
            "type": "operation.failed",
            "actor": "milepost",
            "request_id": None,
            "reason": "the lease of the last attempt ran out",
            "time": second(COMPLETE + 1),
        }
        self.deliveries[0]["type"] = "operation.failed"
        self.history.webhooks[0] = webhook(status="FAILED", type="operation.failed")
        views = self.history.watches[0].views
        views[-1] = dataclasses.replace(views[-1], status="FAILED")

    def change(self, number: int, **fields: Any) -> None:
        """Replace fields of a call."""
        self.history.calls[number] = dataclasses.replace(self.history.calls[number], **fields)

    def change_view(self, number: int, **fields: Any) -> None:
        """Replace fields of the view of a call."""
        (view,) = self.history.calls[number].views
        self.change(number, views=(dataclasses.replace(view, **fields),))


CREATE, CLAIM, PROGRESS, RELEASE, CLAIM_AGAIN, COMPLETE, READ = range(7)
STEPS = (
    ("CreateOperation", ALICE, "PENDING", 1, 0),
    ("ClaimOperations", WORKER, "PROCESSING", 2, 1),
    ("UpdateProgress", WORKER, "PROCESSING", 3, 1),
    ("ReleaseOperation", WORKER, "PENDING", 4, 1),
    ("ClaimOperations", WORKER, "PROCESSING", 5, 2),
    ("CompleteOperation", WORKER, "COMPLETED", 6, 2),
)


def second(number: int) -> datetime:
    """Return a time of the database."""
    return NOON + timedelta(seconds=number)


def call_of(number: int) -> Call:
    """Return the call of a step, and its answer."""
    method, client, status, revision, attempt = STEPS[number]
    has_lease = status == "PROCESSING"
    view = View(
        id=ID,
        revision=revision,
        attempt=attempt,
        status=status,
        owner=ALICE,
        progress=0.5 if method == "UpdateProgress" else None,
        start_time=second(number) if method == "ClaimOperations" else None,
        progress_time=second(number) if method == "UpdateProgress" else None,
        lease_expire_time=second(number + 30) if has_lease else None,
    )
    is_claim, is_create = method == "ClaimOperations", method == "CreateOperation"
    return Call(
        client=client,
        method=method,
        begin=10.0 * number,
        end=10.0 * number + 5,
        outcome=Outcome.DONE,
        operation_id=None if is_create or is_claim else ID,
        request_id=None if is_claim else f"request-{number}",
        attempt=None if is_create or is_claim else attempt,
        progress=0.5 if method == "UpdateProgress" else None,
        lease_s=30 if is_claim else None,
        result=b"done" if method == "CompleteOperation" else None,
        callback=is_create,
        views=(view,),
    )


def event_of(number: int) -> dict[str, Any]:
    """Return the event of a step."""
    call = call_of(number)
    transition = call.transition
    assert transition is not None
    return {
        "operation_id": ID,
        "revision": call.views[0].revision,
        "type": TABLE[transition].event,
        "transition": transition.value,
        "owner": ALICE,
        "actor": call.client,
        "request_id": call.request_id,
        "reason": None,
        "time": second(number),
        "attempt": call.views[0].attempt,
    }


def clean_run() -> Run:
    """Return a run in which all is well."""
    read = Call(
        client=ALICE,
        method="GetOperation",
        begin=60,
        end=61,
        outcome=Outcome.DONE,
        operation_id=ID,
        views=(View(id=ID, revision=6, attempt=2, status="COMPLETED", owner=ALICE),),
    )
    found = Run(
        history=History(calls=[*map(call_of, range(6)), read]),
        events=[event_of(number) for number in range(6) if number != PROGRESS],
        row={
            "id": ID,
            "owner": ALICE,
            "status": "COMPLETED",
            "revision": 6,
            "attempt": 2,
            "progress": 1.0,
            "result_value": b"done",
            "callback_url": "http://127.0.0.1/hook",
        },
        reserved={ALICE: 1},
    )
    found.history.watches.append(
        Watched(
            client=ALICE,
            operation_id=ID,
            begin=6,
            views=[c.views[0] for c in map(call_of, range(6))],
        )
    )
    found.history.webhooks.append(webhook())
    found.deliveries.append(
        {
            "id": "msg_1",
            "operation_id": ID,
            "revision": 6,
            "type": "operation.completed",
            "status": "DELIVERED",
            "attempts": 2,
        }
    )
    found.attempts["msg_1"] = [
        {"number": 1, "status_code": 500, "start_time": second(6)},
        {"number": 2, "status_code": 200, "start_time": second(7)},
    ]
    return found


def webhook(**fields: Any) -> Received:
    """Return the webhook of the end."""
    plain = Received(
        webhook_id="msg_1",
        operation_id=ID,
        revision=6,
        type="operation.completed",
        status="COMPLETED",
        answer=200,
    )
    return dataclasses.replace(plain, **fields)
