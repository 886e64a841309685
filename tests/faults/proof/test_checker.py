"""The checker on crafted histories: a clean one, and one with each kind of violation."""

import dataclasses
from collections.abc import Callable

import pytest

from milepost.domain.transitions import Transition
from tests.faults.proof.crafted import (
    ALICE,
    CLAIM,
    CLAIM_AGAIN,
    COMPLETE,
    CREATE,
    ID,
    PROGRESS,
    READ,
    RELEASE,
    Run,
    call_of,
    clean_run,
    event_of,
    second,
    webhook,
)
from tests.faults.proof.history import TRANSITIONS, Call, Outcome
from tests.faults.proof.violations import Kind


@pytest.fixture
def run() -> Run:
    """A run in which all is well."""
    return clean_run()


def test_clean_history(run):
    """A history without a violation has none."""
    assert run.found() == set()


def test_unknown_outcomes(run):
    """A call without an answer may have happened, or not."""
    run.change(COMPLETE, outcome=Outcome.UNKNOWN, views=())
    lost = dataclasses.replace(
        run.history.calls[COMPLETE], method="CancelOperation", request_id="lost", result=None
    )
    run.history.calls.append(lost)
    assert run.found() == set()


def test_shorter_lease_of_a_later_attempt(run):
    """A lease may end before the one of an earlier attempt would have ended."""
    del run.history.calls[COMPLETE:]
    run.history.calls[CLAIM_AGAIN] = dataclasses.replace(call_of(CLAIM_AGAIN), lease_s=1)
    run.change_view(CLAIM_AGAIN, lease_expire_time=second(CLAIM_AGAIN + 1))
    run.end_by_sweep()
    assert run.found() == set()


Break = Callable[[Run], None]
BREAKS: list[tuple[Kind, Break]] = []


def breaks(kind: Kind) -> Callable[[Break], Break]:
    """Register a change of the clean run that the checker must find."""

    def register(change: Break) -> Break:
        BREAKS.append((kind, change))
        return change

    return register


@breaks(Kind.LOST)
def _change_is_gone(run: Run) -> None:
    run.events.pop()
    run.row |= {"status": "PROCESSING", "revision": 5, "result_value": None}


@breaks(Kind.LOST)
def _operation_is_gone(run: Run) -> None:
    run.events.clear()
    run.row.clear()


@breaks(Kind.LOST)
def _change_of_another(run: Run) -> None:
    run.events[-1]["request_id"] = None
    run.events[-1]["actor"] = ALICE


@breaks(Kind.LOST)
def _other_result(run: Run) -> None:
    run.row["result_value"] = b"another"


@breaks(Kind.LOST)
def _progress_is_gone(run: Run) -> None:
    last = dataclasses.replace(call_of(PROGRESS), request_id="again", attempt=2)
    view = dataclasses.replace(last.views[0], revision=6, attempt=2, lease_expire_time=None)
    run.history.calls[COMPLETE:] = [dataclasses.replace(last, views=(view,))]
    run.events.pop()
    run.row |= {"status": "PROCESSING", "progress": 0.1}


@breaks(Kind.LOST)
def _not_found(run: Run) -> None:
    run.change(READ, outcome=Outcome.REFUSED, reason="OPERATION_NOT_FOUND", views=())


@breaks(Kind.DEFECT)
def _internal_error(run: Run) -> None:
    run.change(READ, outcome=Outcome.UNKNOWN, reason="INTERNAL", views=())


@breaks(Kind.PHANTOM)
def _never_cancelled(run: Run) -> None:
    run.change_view(READ, status="CANCELLED")


@breaks(Kind.PHANTOM)
def _attempt_of_an_answer(run: Run) -> None:
    run.change_view(READ, attempt=1)


@breaks(Kind.PHANTOM)
def _watch_of_another_state(run: Run) -> None:
    views = run.history.watches[0].views
    views[-1] = dataclasses.replace(views[-1], status="FAILED")


@breaks(Kind.UNASKED)
def _unknown_request(run: Run) -> None:
    del run.history.calls[COMPLETE]


@breaks(Kind.UNASKED)
def _unknown_actor(run: Run) -> None:
    run.events[1]["actor"] = "mallory"


@breaks(Kind.REFUSED)
def _refused_and_done(run: Run) -> None:
    run.change(COMPLETE, outcome=Outcome.REFUSED, reason="STALE_ATTEMPT", views=())


@breaks(Kind.UNJUST)
def _refused_for_nothing(run: Run) -> None:
    refused = dataclasses.replace(
        call_of(RELEASE),
        begin=25,
        end=26,
        outcome=Outcome.REFUSED,
        reason="ILLEGAL_TRANSITION",
        request_id="other",
        views=(),
    )
    run.history.calls.append(refused)


@breaks(Kind.REPEATED)
def _one_request_twice(run: Run) -> None:
    run.events[-2]["request_id"] = run.events[-1]["request_id"]
    run.events[-2]["actor"] = run.events[-1]["actor"]


@breaks(Kind.REPEATED)
def _one_revision_twice(run: Run) -> None:
    other = dataclasses.replace(call_of(PROGRESS), request_id="other", begin=22, end=26)
    run.history.calls.append(other)


@breaks(Kind.ILLEGAL)
def _from_pending_to_completed(run: Run) -> None:
    del run.events[1]


@breaks(Kind.ILLEGAL)
def _changed_after_its_end(run: Run) -> None:
    run.row["revision"] = 7


@breaks(Kind.ILLEGAL)
def _gone_without_a_purge(run: Run) -> None:
    run.row.clear()


@breaks(Kind.TWO_ENDS)
def _two_ends(run: Run) -> None:
    run.events.append(run.events[-1] | {"revision": 7, "request_id": None, "reason": "none"})
    run.row["revision"] = 7


@breaks(Kind.STUCK)
def _not_ended(run: Run) -> None:
    run.events.pop()
    del run.history.calls[COMPLETE]
    run.row |= {"status": "PROCESSING", "revision": 5}


@breaks(Kind.STALE)
def _old_read(run: Run) -> None:
    run.change_view(READ, status="PROCESSING", revision=5)


@breaks(Kind.STALE)
def _read_of_a_deleted_operation(run: Run) -> None:
    delete = Call(
        client=ALICE,
        method="DeleteOperation",
        begin=56,
        end=58,
        outcome=Outcome.DONE,
        operation_id=ID,
    )
    run.history.calls.append(delete)


@breaks(Kind.OWNER)
def _operation_of_another(run: Run) -> None:
    run.change_view(CREATE, owner="bob")


@breaks(Kind.ATTEMPT)
def _late_attempt(run: Run) -> None:
    run.change(COMPLETE, attempt=1)


@breaks(Kind.LEASE)
def _lease_by_another_clock(run: Run) -> None:
    run.change_view(CLAIM, lease_expire_time=second(CLAIM + 330))


@breaks(Kind.LEASE)
def _lease_not_renewed(run: Run) -> None:
    run.change_view(PROGRESS, lease_expire_time=second(CLAIM + 30))


@breaks(Kind.SWEPT)
def _swept_early(run: Run) -> None:
    swept = {"actor": "milepost", "request_id": None, "reason": "the lease ran out"}
    run.events[RELEASE - 1] |= swept
    del run.history.calls[RELEASE]


@breaks(Kind.WATCH_GAP)
def _change_not_watched(run: Run) -> None:
    del run.history.watches[0].views[RELEASE]


@breaks(Kind.WATCH_GAP)
def _first_change_not_watched(run: Run) -> None:
    watch = run.history.watches[0]
    watch.after = 1
    del watch.views[: CLAIM + 1]


@breaks(Kind.WATCH_GAP)
def _end_not_watched(run: Run) -> None:
    run.history.watches[0].views.pop()


@breaks(Kind.WATCH_REPEAT)
def _watched_twice(run: Run) -> None:
    views = run.history.watches[0].views
    views.insert(1, views[0])


@breaks(Kind.MADE_UP)
def _webhook_of_nothing(run: Run) -> None:
    run.history.webhooks.append(webhook(revision=9))


@breaks(Kind.MADE_UP)
def _webhook_of_another_end(run: Run) -> None:
    run.history.webhooks.append(webhook(status="FAILED", type="operation.failed"))


@breaks(Kind.MADE_UP)
def _delivery_of_nothing(run: Run) -> None:
    run.deliveries.append(run.deliveries[0] | {"id": "msg_2", "revision": 9})


@breaks(Kind.UNTOLD)
def _no_webhook(run: Run) -> None:
    run.history.webhooks.clear()


@breaks(Kind.UNTOLD)
def _no_accepted_webhook(run: Run) -> None:
    run.history.webhooks[0] = webhook(answer=500)


@breaks(Kind.WEBHOOK_ID)
def _second_webhook_id(run: Run) -> None:
    run.history.webhooks.append(webhook(webhook_id="msg_2"))


@breaks(Kind.SIGNATURE)
def _bad_signature(run: Run) -> None:
    run.history.webhooks.append(webhook(is_signed=False))


@breaks(Kind.SETTLED)
def _settled_by_a_failure(run: Run) -> None:
    run.deliveries[0]["status"] = "EXHAUSTED"


@breaks(Kind.SETTLED)
def _sent_again_after_a_success(run: Run) -> None:
    run.deliveries[0]["attempts"] = 3
    run.attempts["msg_1"].append({"number": 3, "status_code": 200, "start_time": second(8)})


@breaks(Kind.QUOTA)
def _refused_below_the_quota(run: Run) -> None:
    refused = dataclasses.replace(
        call_of(CREATE),
        begin=70,
        end=71,
        outcome=Outcome.REFUSED,
        reason="QUOTA_EXCEEDED",
        request_id="more",
        views=(),
    )
    run.history.calls.append(refused)


@breaks(Kind.QUOTA)
def _beyond_the_quota(run: Run) -> None:
    other = ID.replace("1", "2")
    view = dataclasses.replace(call_of(CREATE).views[0], id=other)
    create = dataclasses.replace(
        call_of(CREATE), begin=12, end=13, request_id="more", views=(view,), callback=False
    )
    run.history.calls.append(create)
    run.events.append(event_of(CREATE) | {"operation_id": other, "request_id": "more"})


@breaks(Kind.QUOTA)
def _reserved_too_little(run: Run) -> None:
    run.reserved[ALICE] = 0
    run.row["status"] = "PENDING"


@pytest.mark.parametrize(
    ("kind", "change"), BREAKS, ids=[change.__name__.strip("_") for _, change in BREAKS]
)
def test_violation(run, kind, change):
    """Each violation is found in an otherwise clean history."""
    change(run)
    assert kind in run.found()


def test_every_kind_is_tested():
    """No kind of violation is without a test."""
    assert {kind for kind, _ in BREAKS} == set(Kind)


def test_transition_of_every_method():
    """The checker knows the transitions that callers and workers ask for, all of them."""
    of_sweeper = {Transition.ABANDON, Transition.TIME_OUT, Transition.EXPIRE}
    assert set(TRANSITIONS.values()) == set(Transition) - of_sweeper
