"""Operations of other owners are indistinguishable from missing ones, over every protocol."""

import json
import operator
from collections.abc import Mapping
from datetime import timedelta

import pytest
import sqlalchemy as sa
from grpc import StatusCode

from milepost.domain.operation import OperationId, Status, new_operation_id
from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.storage.tables import operations
from tests import factories
from tests.e2e.client import FUNCTION, Client
from tests.e2e.http.exchange import RawHttp, http_of
from tests.e2e.http.protocol import HTTP_RPCS, url_of
from tests.e2e.refusals import Refusal, refused
from tests.e2e.rpcs import ABOUT_ONE, BY_METHOD, Rpc
from tests.e2e.service import Service

METHOD = operator.attrgetter("method")
rpcs = pytest.mark.parametrize("rpc", ABOUT_ONE, ids=METHOD)
PLACEHOLDER = "op_xxxxxxxxxxxxxxxxxxxxxxxx"
CONDITIONS = {
    "If-Match": '"2"',
    "If-None-Match": '"2"',
    "Idempotency-Key": "r",
    "Last-Event-ID": "99",
    "Prefer": "wait=1",
}
"""Headers that would make a difference for the owner of an operation at revision 2."""


@pytest.fixture(scope="module")
def strangers(any_service: Service) -> list[Client]:
    """Clients of every role without a relation to the operation."""
    return [
        any_service.client("bob"),
        any_service.client("wendy", roles=("WORKER",), functions=("audio.*", FUNCTION + ".x")),
        any_service.client("both", roles=("CALLER", "WORKER"), functions=("video.transcod",)),
    ]


def authorized(clients: list[Client], rpc: Rpc) -> list[Client]:
    """Return the clients whose roles allow the RPC."""
    return [client for client in clients if not rpc.permission.roles.isdisjoint(client.roles)]


def not_found(client: Client, rpc: Rpc, operation_id: str, **fields: object) -> Refusal:
    """Return the refusal of a call about an operation that the client has no access to."""
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND") as refusal:
        client.send(rpc, rpc.about(operation_id, **fields))
    assert refusal.facts == {"operation_id": operation_id}
    assert operation_id in refusal.message
    return refusal


def on_the_wire(refusal: Refusal) -> tuple[object, ...]:
    """Return every byte of a refusal, without the id."""
    operation_id = refusal.facts["operation_id"]

    def hidden(value: str | bytes) -> str | bytes:
        if isinstance(value, bytes):
            return value.replace(operation_id.encode(), PLACEHOLDER.encode())
        return value.replace(operation_id, PLACEHOLDER)

    return (
        refusal.code,
        hidden(refusal.message),
        [hidden(detail.value) for detail in refusal.status.details],
        [(key, hidden(value)) for key, value in refusal.trailers],
        list(refusal.error.initial_metadata() or ()),
    )


def over_http(
    client: Client,
    service: Service,
    rpc: Rpc,
    operation_id: str,
    headers: Mapping[str, str],
    **fields: object,
) -> bytes:
    """Return every byte of the same refusal over HTTP, without the id and the date."""
    verb, place, body = url_of(rpc, rpc.about(operation_id, **fields))
    data = b"" if body is None else json.dumps(body).encode()
    sent = {"Content-Type": "application/json", "Content-Length": len(data), **headers}
    lines = [f"{name}: {value}" for name, value in sent.items()]
    with RawHttp(service) as raw:
        raw.send(verb, place, f"Authorization: Bearer {client.key}", *lines, body=data)
        answer = raw.response()
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b'"reason": "OPERATION_NOT_FOUND"' in answer
    assert operation_id.encode() in answer
    return answer.replace(operation_id.encode(), PLACEHOLDER.encode())


def refusals(
    client: Client, service: Service, rpc: Rpc, operation_id: str, **fields: object
) -> list[object]:
    """Return every byte of a refusal, over each protocol that has the RPC."""
    found: list[object] = [on_the_wire(not_found(client, rpc, operation_id, **fields))]
    if rpc in HTTP_RPCS:
        found.append(over_http(client, service, rpc, operation_id, {}, **fields))
    return found


@rpcs
@pytest.mark.parametrize("fate", [*Status, "DELETED", "EXPIRED"])
def test_foreign_is_as_missing(any_service, alice, strangers, rpc, fate):
    """A foreign operation is byte for byte like a missing one, in every fate."""
    operation = alice.create_in(fate if isinstance(fate, Status) else "COMPLETED")
    if fate == "DELETED":
        alice.call("DeleteOperation", operation_id=operation.id)
    if fate == "EXPIRED":
        factories.age(any_service.engine, OperationId(operation.id), timedelta(days=2))
    for stranger in authorized(strangers, rpc):
        about_foreign = refusals(stranger, any_service, rpc, operation.id)
        assert about_foreign == refusals(stranger, any_service, rpc, new_operation_id())


@rpcs
def test_preconditions_reveal_nothing(any_service, alice, strangers, rpc):
    """A matching revision, attempt or request_id makes no difference for a stranger."""
    operation = alice.create()
    alice.transition("StartOperation", operation.id, request_id="r")
    fields = rpc.request.DESCRIPTOR.fields_by_name
    fitting = {"request_id": "r", "expected_revision": 2, "attempt": 1}
    given = {name: value for name, value in fitting.items() if name in fields}
    for stranger in authorized(strangers, rpc):
        about_foreign = refusals(stranger, any_service, rpc, operation.id, **given)
        assert about_foreign == refusals(stranger, any_service, rpc, new_operation_id(), **given)


@pytest.mark.parametrize("rpc", [rpc for rpc in ABOUT_ONE if rpc in HTTP_RPCS], ids=METHOD)
def test_conditions_in_headers_reveal_nothing(any_service, alice, strangers, rpc):
    """No condition or preference in the headers of HTTP makes a difference for a stranger."""
    operation = alice.create()
    alice.transition("StartOperation", operation.id, request_id="r")
    for stranger in authorized(strangers, rpc):
        for name, value in CONDITIONS.items():
            foreign, missing = (
                over_http(stranger, any_service, rpc, operation_id, {name: value})
                for operation_id in (operation.id, new_operation_id())
            )
            assert foreign == missing, name


@pytest.mark.parametrize("method", ["GetOperation", "GoogleGetOperation"])
def test_preference_reveals_nothing(any_service, alice, strangers, method):
    """A call that prefers to wait is refused for a stranger as any other one."""
    operation = alice.create()
    rpc = BY_METHOD[method]
    for stranger in authorized(strangers, rpc):
        waiting = Client(any_service.channel, stranger.subject, stranger.roles, stranger.key)
        waiting.metadata = (*stranger.metadata, ("prefer", "wait=10"))
        foreign, missing = (
            on_the_wire(not_found(waiting, rpc, operation_id))
            for operation_id in (operation.id, new_operation_id())
        )
        assert foreign == missing


def test_refused_strangers_change_nothing(any_service, alice, strangers, stored):
    """Refused calls of strangers change neither the operation nor its events."""
    operation = alice.create()
    before = stored.everything(OperationId(operation.id))
    for rpc in ABOUT_ONE:
        for stranger in authorized(strangers, rpc):
            refusals(stranger, any_service, rpc, operation.id)
    assert stored.everything(OperationId(operation.id)) == before


@pytest.mark.parametrize("rpc", [r for r in ABOUT_ONE if r.method != "GetOperation"], ids=METHOD)
def test_owner_learns_of_delete_and_expiry(any_service, alice, rpc):
    """Only the owner learns that an operation was deleted or has expired."""
    deleted, expired = alice.create_in("COMPLETED"), alice.create_in("FAILED")
    alice.call("DeleteOperation", operation_id=deleted.id)
    factories.age(any_service.engine, OperationId(expired.id), timedelta(days=2))
    for operation, reason in ((deleted, "OPERATION_DELETED"), (expired, "OPERATION_EXPIRED")):
        with refused(StatusCode.NOT_FOUND, reason) as refusal:
            alice.send(rpc, rpc.about(operation.id))
        assert refusal.facts == {"operation_id": operation.id}
        if rpc in HTTP_RPCS:
            http = http_of(any_service, alice)
            verb, place, body = url_of(rpc, rpc.about(operation.id))
            assert http(verb, place, body).refusal == (404, reason)
            http.close()


def test_granted_worker_does_the_work_of_any_owner(any_service, alice):
    """A worker changes foreign operations of functions granted to it by name or by pattern."""
    exact = any_service.client("exact", roles=("WORKER",), functions=(FUNCTION,))
    pattern = any_service.client("pattern", roles=("WORKER",), functions=("audio.*", "video.*"))
    operation = alice.create()
    exact.transition("StartOperation", operation.id)
    assert exact.get(operation.id).owner == alice.subject
    pattern.transition("UpdateProgress", operation.id, progress=0.5)
    assert pattern.transition("CompleteOperation", operation.id).owner == alice.subject


def test_owner_may_do_the_work(alice):
    """An owner can do the worker's calls on its own operations without the worker role."""
    assert alice.create_in("COMPLETED").status == pb.OPERATION_STATUS_COMPLETED
    assert alice.create_in("FAILED").status == pb.OPERATION_STATUS_FAILED


def test_worker_cannot_cancel_or_delete(any_service, alice):
    """A worker grant does not allow to cancel or delete an operation."""
    both = any_service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
    operation = alice.create_in("PROCESSING")
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        both.transition("CancelOperation", operation.id)
    both.transition("CompleteOperation", operation.id)
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        both.call("DeleteOperation", operation_id=operation.id)


def test_admin_sees_and_cancels_but_does_not_work(any_service, alice, admin):
    """An admin can read, cancel and delete foreign operations, and cannot work on them."""
    operation = alice.create()
    assert admin.get(operation.id) == operation
    assert admin.transition("CancelOperation", operation.id).status == pb.OPERATION_STATUS_CANCELLED
    admin.call("DeleteOperation", operation_id=operation.id)
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        admin.get(operation.id)
    everything = any_service.client("root", roles=("ADMIN", "CALLER"))
    other = alice.create()
    with refused(StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND"):
        everything.transition("StartOperation", other.id)


def test_only_the_owner_sees_the_callback_url(alice, worker, admin, stored):
    """The callback URL is shown to the owner alone, and without its query."""
    operation = alice.create()
    url = "https://example.com/hook?token=secret"
    mine = operations.c.id == operation.id
    stored.execute(sa.update(operations).where(mine).values(callback_url=url))
    assert alice.get(operation.id).callback_url == "https://example.com/hook"
    for other in (worker, admin):
        assert not other.get(operation.id).HasField("callback_url")
