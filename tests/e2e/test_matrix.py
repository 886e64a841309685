"""The access matrix: every RPC, every kind of principal, every kind of operation."""

import json
import operator
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from grpc import StatusCode

from milepost.access.audit import redacted_id
from milepost.api.methods import METHODS
from milepost.domain.operation import OperationId
from milepost.domain.transitions import Transition
from milepost.storage.tables import operations
from tests.e2e import matrix
from tests.e2e.matrix import Answer, Cell
from tests.e2e.people import Person
from tests.e2e.people import people as people_of
from tests.e2e.refusals import Refusal, refused
from tests.e2e.rpcs import ALTERNATIVE_RPCS, RPCS, Rpc
from tests.e2e.service import LOG_SECONDS, Service
from tests.waiting import eventually

NAME = operator.attrgetter("label")
ABOUT_ONE = [rpc for rpc in (*RPCS, *ALTERNATIVE_RPCS) if rpc.takes_id]
OTHERS = [rpc for rpc in RPCS if not rpc.takes_id]
LISTS = [rpc for rpc in RPCS if "page_token" in rpc.request.DESCRIPTOR.fields_by_name]
EXACT = {"CreateOperation", "ListOperations", "ClaimOperations"}
"""RPCs about no single operation whose complete requests must succeed."""
MAY_HAPPEN = {
    StatusCode.OK,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.FAILED_PRECONDITION,
}
"""Codes of an authorized call to another RPC, which is never refused for its caller."""


def new_function() -> str:
    """Return a function that no other test uses."""
    return f"matrix.{uuid.uuid4().hex[:12]}.job"


class Log:
    """The log of a service from now on."""

    def __init__(self, service: Service) -> None:
        self._path: Path = service._log
        self._start = self._path.stat().st_size

    def lines(self) -> list[Mapping[str, Any]]:
        """Return the whole lines so far."""
        with self._path.open("rb") as file:
            file.seek(self._start)
            text = file.read()
        lines = text[: text.rfind(b"\n") + 1].splitlines()
        # gRPC writes lines of its own.
        return [json.loads(line) for line in lines if line.startswith(b"{")]

    def lines_of(self, cells: Iterable[Cell], count: int) -> Mapping[str, list[Mapping[str, Any]]]:
        """Wait for `count` lines and return them by the trace of their call."""
        traces: dict[str, list[Mapping[str, Any]]] = {cell.trace_id: [] for cell in cells}

        def found() -> list[Mapping[str, Any]]:
            return [line for line in self.lines() if line.get("trace_id") in traces]

        eventually(
            lambda: len(found()) >= count,
            within=LOG_SECONDS,
            what=f"{count} lines, there are {len(found())}",
        )
        for line in found():
            traces[line["trace_id"]].append(line)
        return traces


def expected_lines(cell: Cell, answer: Answer) -> list[str]:
    """Return the events that the audit log must have of one call."""
    if answer.code is not StatusCode.OK:
        return ["call refused"]
    if METHODS[cell.rpc.name].audited:
        return ["call answered"]
    # A stream notifies its worker of a cancel, which is not a refusal.
    notified = cell.rpc.method == "StreamProgress" and answer.response.HasField("interruption")
    transition = cell.rpc.transition
    if transition is None or notified or cell.has_no_effect:
        return []
    count = len(answer.response.operations) if transition is Transition.CLAIM else 1
    return ["operation changed"] * count


def check_audit(log: Log, answers: list[tuple[Cell, Answer]]) -> None:
    """Assert that every change and every refusal has exactly one complete line."""
    expected = {cell.trace_id: expected_lines(cell, answer) for cell, answer in answers}
    total = sum(map(len, expected.values()))
    found = log.lines_of([cell for cell, _ in answers], total)
    for cell, answer in answers:
        lines = found[cell.trace_id]
        assert [line["event"] for line in lines] == expected[cell.trace_id], str(cell)
        for line in lines:
            check_line(line, cell, answer)


def check_line(line: Mapping[str, Any], cell: Cell, answer: Answer) -> None:
    """Assert that a line of the audit log has every field, with the values of the call."""
    person = cell.person
    assert line["principal"] == (person.subject if person.known else None), str(cell)
    key = dict(person.metadata).get("authorization", "") if person.known else ""
    assert (line["credential_id"] or "") == str(key).removeprefix("Bearer mp_").partition("_")[0]
    assert line["method"] == cell.rpc.name
    assert line["peer"].startswith("ipv4:127.0.0.1:")
    assert line["timestamp"].endswith("Z")
    assert line["code"] == answer.code.name, str(cell)
    assert line.get("reason", "") == answer.reason, str(cell)
    if cell.rpc.takes_id and cell.rpc.shape == "unary_unary":
        asked = str(getattr(cell.request, cell.rpc.id_field)).removeprefix("operations/")
        assert (line["operation_id"] or "") == redacted_id(asked), str(cell)


def cells_about(people: list[Person], rpc: Rpc, function: str, service: Service) -> list[Cell]:
    """Return a cell for every person and fate, each with an operation of its own."""
    fresh = uuid.uuid4().hex[:12]
    cells, made = [], []
    for number, person in enumerate(people):
        whose = person.subject if person.kind == "owner" else f"alice-{fresh}-{number}"
        for cell, operation_id in matrix.about(person, rpc, function, whose):
            cells.append(cell)
            if cell.what in matrix.FATES:
                made.append((operation_id, whose, function, cell.what))
    matrix.store(service.engine, made)
    return cells


@pytest.mark.parametrize("rpc", ABOUT_ONE, ids=NAME)
async def test_answer_about_an_operation_is_what_the_policy_says(any_service, rpc):
    """Code, reason and audit line of every cell are those of the policy."""
    function = new_function()
    people = people_of(function, any_service.engine)
    cells = cells_about(people, rpc, function, any_service)
    log = Log(any_service)
    answers = await matrix.ask_all(any_service, cells)
    wrong = [
        f"{cell}: {answer.code.name} {answer.reason}, expected {cell.expected}"
        for cell, answer in answers
        if (answer.code, answer.reason) != cell.expected
    ]
    assert not wrong, "\n".join(wrong)
    check_audit(log, answers)


@pytest.mark.parametrize("rpc", OTHERS, ids=NAME)
async def test_answer_about_no_operation_is_what_the_policy_says(any_service, rpc):
    """Roles and grants alone decide over calls that are not about a single operation."""
    function = new_function()
    people = people_of(function, any_service.engine)
    cells = [
        Cell(
            person=person,
            rpc=rpc,
            request=matrix.complete(rpc, function),
            what="nothing",
            owner=person.subject,
            function=function,
        )
        for person in people
    ]
    log = Log(any_service)
    answers = await matrix.ask_all(any_service, cells)
    for cell, answer in answers:
        said = (answer.code, answer.reason)
        if cell.access_refusal is not None:
            assert said == cell.access_refusal, str(cell)
        elif rpc.method == "ClaimOperations" and not cell.relations:
            assert said == (StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"), str(cell)
        elif rpc.method in EXACT:
            assert answer.code is StatusCode.OK, str(cell)
        else:
            assert answer.code in MAY_HAPPEN, str(cell)
    check_audit(log, answers)


@pytest.mark.parametrize("rpc", LISTS, ids=NAME)
async def test_malformed_page_is_refused_after_the_authorization(any_service, rpc):
    """A malformed page token is reported only to callers that are allowed to list."""
    people = people_of(new_function(), any_service.engine)
    fields: list[dict[str, Any]] = [
        {"page_token": "x"},
        {"page_token": 500 * "A"},
        {"page_size": -1},
    ]
    cells = [
        Cell(person=person, rpc=rpc, request=rpc.request(**each), what=f"page {n}")
        for person in people
        for n, each in enumerate(fields)
    ]
    answers = await matrix.ask_all(any_service, cells)
    for cell, answer in answers:
        expected = cell.access_refusal or (StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        assert (answer.code, answer.reason) == expected, str(cell)


@pytest.mark.parametrize("rpc", ABOUT_ONE, ids=NAME)
async def test_stranger_gets_the_same_bytes_before_and_after_it_exists(any_service, rpc):
    """A stranger gets the same bytes about an id before, while and after it exists."""
    people = people_of(new_function(), any_service.engine)
    function, owner = "elsewhere." + new_function(), f"alice-{uuid.uuid4().hex[:12]}"
    found = [
        (cell, operation_id)
        for person in people
        for cell, operation_id in matrix.about(person, rpc, function, owner)
        if cell.what in matrix.FATES and not cell.relations
    ]
    cells = [cell for cell, _ in found]
    before = await matrix.ask_all(any_service, cells)
    matrix.store(any_service.engine, [(id_, owner, function, c.what) for c, id_ in found])
    after = await matrix.ask_all(any_service, cells)
    for (cell, missing), (_, foreign) in zip(before, after, strict=True):
        assert foreign == missing, str(cell)
    strangers = Counter(cell.person.kind for cell, answer in after if answer.reason)
    assert {"another owner", "anonymous", "worker with another grant"} <= strangers.keys()


def test_no_label_of_a_metric_has_an_identity(any_service, alice):
    """No label of any metric contains an owner, a subject, an id or a key.

    The names of functions are labels as their callers chose them, up to a number of them.
    """
    operation = alice.create()
    stranger = any_service.client("bob")
    with refused(StatusCode.NOT_FOUND):
        stranger.get(operation.id)
    page = any_service.probe("/metrics")[1]
    labels = re.findall(r'(\w+)="([^"]*)"', page)
    assert ("code", "NOT_FOUND") in labels
    names = {name for name, _ in labels}
    assert names.isdisjoint({"owner", "subject", "principal", "operation_id", "credential_id"})
    for name, value in labels:
        if name == "function":
            continue
        assert not re.search(r"op_[0-9a-f]{24}|mp_[0-9a-f]{16}|[0-9a-f]{32}", value), value
        assert alice.subject not in value
        assert stranger.subject not in value


def test_owner_of_the_first_request_id_stays_unknown(any_service, alice):
    """A request_id of another owner is as good as an unused one, for creates and transitions."""
    mine = alice.create(request_id="shared")
    bob = any_service.client("bob")
    theirs = bob.call("CreateOperation", function="other", request_id="shared")
    fresh = bob.call("CreateOperation", function="other", request_id="never-used")
    assert not theirs.replayed
    assert theirs.operation.id != mine.id
    assert theirs.operation.owner == bob.subject
    for each in (theirs, fresh):
        each.operation.ClearField("id")
        each.operation.ClearField("create_time")
        each.operation.ClearField("expire_time")
        each.operation.ClearField("next_step_deadline")
    assert theirs == fresh


def test_lists_show_nothing_of_others(any_service, alice):
    """No filter and no page token tells a foreign operation apart from a missing one."""
    function = new_function()
    made = [alice.create(function=function) for _ in range(3)]
    bob = any_service.client("bob")
    for selection in (
        {"function": function},
        {"function": function, "statuses": [made[0].status]},
        {"create_time_from": made[0].create_time},
    ):
        found = bob.call("ListOperations", **selection)
        assert (list(found.operations), found.next_page_token) == ([], "")
    refusals = []
    for owner in (alice.subject, "unknown-" + uuid.uuid4().hex):
        with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED") as refusal:
            bob.call("ListOperations", owner=owner)
        refusals.append((refusal.message, refusal.trailers))
    token = alice.call("ListOperations", page_size=1, function=function).next_page_token
    for text in (token, token[::-1]):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
            bob.call("ListOperations", page_size=1, function=function, page_token=text)
        refusals.append((refusal.message, refusal.trailers))
    assert refusals[0] == refusals[1]
    assert refusals[2] == refusals[3]


def test_foreign_delivery_is_as_missing(any_service, alice, stored):
    """A delivery of another owner's operation is byte for byte like a missing one."""
    operation = alice.create_in("PROCESSING")
    mine = operations.c.id == operation.id
    given = {
        "callback_url": "https://example.com/hook",
        "callback_events": "operation.completed",
    }
    stored.execute(sa.update(operations).where(mine).values(**given))
    alice.transition("CompleteOperation", operation.id)
    (delivery,) = stored.deliveries(OperationId(operation.id))
    bob = any_service.client("bob")
    rpc = next(rpc for rpc in RPCS if rpc.method == "RedeliverWebhook")
    other = delivery["id"][:-1] + ("0" if delivery["id"][-1] != "0" else "1")
    refusals = []
    for delivery_id in (delivery["id"], other):
        with pytest.raises(grpc.RpcError) as caught:
            bob.send(rpc, rpc.request(delivery_id=delivery_id))
        refusal = Refusal()
        refusal.error = caught.value
        assert refusal.reason == "DELIVERY_NOT_FOUND"
        hidden = [str(item).replace(delivery_id, "whd_x") for item in refusal.trailers]
        refusals.append((refusal.message.replace(delivery_id, "whd_x"), hidden))
    assert refusals[0] == refusals[1]
