"""Checks of webhooks: one for every committed end, under one id, and none without a commit."""

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from milepost.domain.delivery import DeliveryStatus
from milepost.domain.transitions import TABLE, Transition
from milepost.webhooks.dispatcher import SETTLE_TIME
from milepost.webhooks.schedule import is_success
from tests.faults.proof.history import History, Received
from tests.faults.proof.tables import Row, Tables, is_end
from tests.faults.proof.violations import Kind, Violation

Event = tuple[str, int]
"""Operation and revision."""


def check_webhooks(history: History, tables: Tables) -> Iterator[Violation]:
    """Compare what the receiver got with the events and the deliveries."""
    got: dict[Event, list[Received]] = defaultdict(list)
    for webhook in history.webhooks:
        got[webhook.operation_id, webhook.revision].append(webhook)
        if not webhook.is_signed:
            yield Violation(Kind.SIGNATURE, f"{webhook}")
    for event, webhooks in got.items():
        yield from _made_up(event, webhooks, tables)
        if len({webhook.webhook_id for webhook in webhooks}) > 1:
            yield Violation(Kind.WEBHOOK_ID, f"{event}: {webhooks}")
    accepted = {event for event, found in got.items() if any(is_success(w.answer) for w in found)}
    for event in sorted(_expected(history, tables) - accepted):
        yield Violation(Kind.UNTOLD, f"{event}, sent {len(got[event])} times")
    yield from _deliveries(tables)


def _made_up(event: Event, webhooks: Sequence[Received], tables: Tables) -> Iterator[Violation]:
    operation_id, revision = event
    timeline = tables.timelines.get(operation_id)
    committed = timeline.event_at(revision) if timeline else None
    for webhook in webhooks:
        if committed is None or not _describes(webhook, committed):
            yield Violation(Kind.MADE_UP, f"{webhook}, committed is {committed}")


def _describes(webhook: Received, event: Row) -> bool:
    target = TABLE[Transition(event["transition"])].target
    return webhook.type == event["type"] and webhook.status == target


def _expected(history: History, tables: Tables) -> set[Event]:
    """Return the ends of operations with a callback URL."""
    with_callback = {
        view.id for call, view in history.observations() if call.callback and not call.replayed
    }
    with_callback |= {
        timeline.id
        for timeline in tables.timelines.values()
        if timeline.row is not None and timeline.row["callback_url"] is not None
    }
    return {
        (id_, event["revision"])
        for id_ in with_callback & tables.timelines.keys()
        for event in tables.timelines[id_].events
        if is_end(event)
    }


def _deliveries(tables: Tables) -> Iterator[Violation]:
    """Look for deliveries without an event, and for those that a lost lease has settled."""
    for delivery in tables.deliveries:
        timeline = tables.timelines.get(delivery["operation_id"])
        event = timeline.event_at(delivery["revision"]) if timeline else None
        if event is None or event["type"] != delivery["type"]:
            yield Violation(Kind.MADE_UP, f"delivery {delivery['id']} of {event}")
        if not _is_settled_by_holder(delivery, tables.attempts.get(delivery["id"], [])):
            tried = [(a["number"], a["status_code"]) for a in tables.attempts[delivery["id"]]]
            yield Violation(Kind.SETTLED, f"{delivery['id']}, {delivery['status']}: {tried}")


def _is_settled_by_holder(delivery: Row, attempts: Sequence[Row]) -> bool:
    """Return whether the last attempt, which alone held the lease, has settled the delivery.

    After an accepted attempt comes another one only if its settlement failed, and then not before
    its lease has run out.
    """
    for attempt, following in itertools.pairwise(attempts):
        pause = following["start_time"] - attempt["start_time"]
        if _is_accepted(attempt) and pause < SETTLE_TIME:
            return False
    if delivery["status"] == DeliveryStatus.PENDING or not attempts:
        return True
    last = next((a for a in attempts if a["number"] == delivery["attempts"]), None)
    is_delivered = delivery["status"] == DeliveryStatus.DELIVERED
    return last is not None and _is_accepted(last) == is_delivered


def _is_accepted(attempt: Row) -> bool:
    code = attempt["status_code"]
    return code is not None and is_success(code)
