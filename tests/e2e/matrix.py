"""The cells of the access matrix: a principal calls an RPC about a resource.

The expected answers are derived from the policy and the transition table.
"""

import asyncio
import contextlib
import dataclasses
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import grpc
import sqlalchemy as sa
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from sqlalchemy.engine import Engine

from milepost.domain.operation import Status, new_operation_id
from milepost.domain.transitions import (
    DELETABLE,
    TABLE,
    TERMINAL,
    Actor,
    Transition,
    fallback_sources,
)
from milepost.gen.milepost.v1 import admin_service_pb2
from milepost.storage.tables import events, operations
from tests import factories
from tests.canaries import CANARIES
from tests.e2e.people import Person
from tests.e2e.rpcs import CALL_SECONDS, Metadata, Rpc
from tests.e2e.service import Service

AT_ONCE: Final = 16
"""Calls in flight: enough to be fast, too few to exceed a limit."""
MORE_TRIES: Final = 5
DETAILS: Final = "grpc-status-details-bin"

GIVEN: Final[Mapping[str, Mapping[str, Any]]] = {
    "RedeliverWebhook": {"delivery_id": "msg_" + 32 * "0"},
    "SendTestWebhook": {"callback_url": "https://localhost/"},
    "PurgeExpiredOperations": {"dry_run": True},
    "CreateApiKey": {"subject": "matrix", "roles": [admin_service_pb2.ROLE_CALLER]},
    "RevokeApiKey": {"key_id": 16 * "0"},
}
"""Fields of complete requests, without those of an operation or a function."""

MISSING: Final = "missing"
EXPIRED: Final = "expired"
DELETED: Final = "deleted"
FATES: Final[tuple[str, ...]] = (*Status, EXPIRED, DELETED)
"""The fates of an operation that was once created."""
MALFORMED: Final[Mapping[str, str]] = {
    "no id": "",
    "short id": "op_0123",
    "upper case id": "op_" + 24 * "A",
    "id with a line break": "op_" + 23 * "0" + "\n",
    "id of another kind": "mp_" + 24 * "0",
    "huge id": 100_000 * "x",
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One call: the principal, the RPC and the resource."""

    person: Person
    rpc: Rpc
    request: Message
    what: str
    """One of `FATES`, `MISSING` or `MALFORMED`; or the scope of the request."""
    owner: str = ""
    function: str = ""
    trace_id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __str__(self) -> str:
        """Name the cell in the report of a failure."""
        return f"{self.person.kind} calls {self.rpc.label} about {self.what}"

    @property
    def access_refusal(self) -> tuple[StatusCode, str] | None:
        """Return code and reason of a refusal that is independent of the operation."""
        if not self.person.known:
            return StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"
        if self.rpc.permission.roles.isdisjoint(self.person.roles):
            return StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED"
        return None

    @property
    def has_no_effect(self) -> bool:
        """True if the call succeeds and changes nothing: Google's cancel of an ended operation."""
        return self.rpc.method == "GoogleCancelOperation" and self.what in TERMINAL

    @property
    def relations(self) -> frozenset[Actor]:
        """The relations of the RPC's row by which the call has access to the operation."""
        mine = self.person.relations(self.owner, self.function)
        return mine & self.rpc.permission.relations

    @property
    def expected(self) -> tuple[StatusCode, str]:
        """Return the expected code and reason of a call about one operation."""
        if self.access_refusal is not None:
            return self.access_refusal
        if self.what in MALFORMED:
            return StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST"
        if not self.relations or self.what in {MISSING, EXPIRED, DELETED}:
            is_told = Actor.OWNER in self.relations and self.what != MISSING
            known_as = self.what.upper() if is_told else "NOT_FOUND"
            return StatusCode.NOT_FOUND, f"OPERATION_{known_as}"
        return self._expected_of_transition

    @property
    def _expected_of_transition(self) -> tuple[StatusCode, str]:
        transition = self.rpc.transition
        # A stream notifies its worker of the cancel, which is not a refusal.
        notified = self.rpc.method == "StreamProgress" and self.what == Status.CANCELLED
        if self.what not in _sources(transition) and not notified and not self.has_no_effect:
            return StatusCode.FAILED_PRECONDITION, "ILLEGAL_TRANSITION"
        if transition is not Transition.ACKNOWLEDGE:
            return StatusCode.OK, ""
        return StatusCode.FAILED_PRECONDITION, "CANCELLATION_NOT_REQUESTED"


def _sources(transition: Transition | None) -> frozenset[Status]:
    """Return the statuses in which a transition, or its fallback, is allowed; all for a read."""
    if transition is None:
        return frozenset(Status)
    if transition is Transition.PURGE:
        return DELETABLE
    return TABLE[transition].sources | fallback_sources(transition)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The whole answer to a call; equal answers are equal to the byte."""

    code: StatusCode
    message: str
    reason: str
    details: bytes
    initial: tuple[tuple[str, str | bytes], ...]
    trailing: tuple[tuple[str, str | bytes], ...]
    response: Any = None


def store(engine: Engine, made: Iterable[tuple[str, str, str, str]]) -> None:
    """Store operations, each given by its id, owner, function and fate."""
    rows, recorded = [], []
    for operation_id, owner, function, fate in made:
        recorded.append(
            _event(operation_id, owner, TABLE[Transition.CREATE].event, Transition.CREATE, 1)
        )
        if fate == DELETED:
            # Not long ago: the service removes the events of operations that are gone for a week.
            purged = _event(operation_id, owner, TABLE[Transition.PURGE].event, Transition.PURGE, 2)
            recorded.append(purged | {"time": datetime.now(UTC)})
            continue
        status = Status(fate) if fate in set(Status) else Status.COMPLETED
        given: dict[str, Any] = {"id": operation_id, "owner": owner, "function": function}
        if fate == EXPIRED:
            given |= {"expire_time": factories.LONG_AGO + timedelta(days=1)}
        rows.append(factories.row(status, **given))
    with engine.begin() as connection:
        if rows:
            connection.execute(sa.insert(operations), rows)
        connection.execute(sa.insert(events), recorded)


def _event(
    operation_id: str, owner: str, type_: str, transition: Transition, revision: int
) -> dict[str, Any]:
    return {
        "operation_id": operation_id,
        "revision": revision,
        "type": type_,
        "transition": transition.value,
        "owner": owner,
        "actor": owner,
        "time": factories.LONG_AGO,
    }


def about(person: Person, rpc: Rpc, function: str, owner: str) -> list[tuple[Cell, str]]:
    """Return a cell for every fate of an operation, and for every kind of missing operation."""
    ids = {what: new_operation_id() for what in (*FATES, MISSING)} | dict(MALFORMED)
    return [
        (
            Cell(
                person=person,
                rpc=rpc,
                request=complete(rpc, function, operation_id=operation_id),
                what=what,
                owner=owner,
                function=function,
            ),
            operation_id,
        )
        for what, operation_id in ids.items()
    ]


def complete(rpc: Rpc, function: str, **fields: Any) -> Message:
    """Return a complete request: a refusal is about the resource, not about a missing field."""
    known = rpc.request.DESCRIPTOR.fields_by_name
    if "timeout" in known:
        fields["timeout"] = duration_pb2.Duration()  # answers at once
    if rpc.method == "ClaimOperations":
        fields["functions"] = [function]
    if rpc.method == "CreateOperation":
        fields["function"] = function
    if "operation_id" in fields:
        return rpc.about(fields.pop("operation_id"), **fields)
    return rpc.request(**{**GIVEN.get(rpc.method, {}), **fields})


async def ask_all(service: Service, cells: Iterable[Cell]) -> list[tuple[Cell, Answer]]:
    """Call all cells and return their answers; the answer of a stream is its first message."""
    gate = asyncio.Semaphore(AT_ONCE)
    async with service.aio_channel() as channel:

        async def one(cell: Cell) -> tuple[Cell, Answer]:
            async with gate:
                answer = await answered(cell)
                for _ in range(MORE_TRIES):
                    if answer.code is not StatusCode.UNAVAILABLE:
                        break
                    # On a busy machine the database may be too slow, which is not a matter of the
                    # policy. The next try is a call of its own, with a trace of its own.
                    cell = dataclasses.replace(cell, trace_id=uuid.uuid4().hex)
                    answer = await answered(cell)
                return cell, answer

        async def answered(cell: Cell) -> Answer:
            if cell.rpc.shape.startswith("stream"):
                # Not with grpc.aio, which reports INTERNAL for a stream that ends before its
                # last request is sent.
                return await asyncio.to_thread(_ask_stream, service.channel, cell)
            return await _ask(channel, cell)

        return await asyncio.gather(*(one(cell) for cell in cells))


def _metadata(cell: Cell) -> Metadata:
    return (*cell.person.metadata, ("traceparent", f"00-{cell.trace_id}-{16 * '1'}-00"))


async def _ask(channel: grpc.aio.Channel, cell: Cell) -> Answer:
    call = cell.rpc.on(channel)(cell.request, metadata=_metadata(cell), timeout=CALL_SECONDS)
    response = None
    with contextlib.suppress(grpc.aio.AioRpcError):  # the code is the answer
        response = await (call.read() if cell.rpc.shape.endswith("stream") else call)
    if isinstance(response, Message) and cell.rpc.shape.endswith("stream"):
        call.cancel()
        return _opened(response)
    return _ended(
        await call.code(),
        await call.details(),
        await call.initial_metadata(),
        await call.trailing_metadata(),
        response,
    )


def _ask_stream(channel: grpc.Channel, cell: Cell) -> Answer:
    call = cell.rpc.on(channel)(
        iter([cell.request]), metadata=_metadata(cell), timeout=CALL_SECONDS
    )
    try:
        response = next(call)
    except (grpc.RpcError, StopIteration):
        ended = call.code(), call.details(), call.initial_metadata(), call.trailing_metadata()
        return _ended(*ended, None)
    call.cancel()
    return _opened(response)


def _opened(response: Any) -> Answer:
    """Return an open stream; its item about one operation may still be a refusal."""
    is_item = "error" in response.DESCRIPTOR.fields_by_name
    refused = response.error if is_item and response.HasField("error") else None
    code = StatusCode.OK if refused is None else _CODE_OF[refused.reason]
    return Answer(
        code=code,
        message="" if refused is None else refused.message,
        reason="" if refused is None else refused.reason,
        details=b"" if refused is None else refused.SerializeToString(deterministic=True),
        initial=(),
        trailing=(),
        response=response,
    )


_CODE_OF: Final = {
    "INVALID_REQUEST": StatusCode.INVALID_ARGUMENT,
    "OPERATION_NOT_FOUND": StatusCode.NOT_FOUND,
    "OPERATION_EXPIRED": StatusCode.NOT_FOUND,
    "OPERATION_DELETED": StatusCode.NOT_FOUND,
    "ILLEGAL_TRANSITION": StatusCode.FAILED_PRECONDITION,
}
"""Codes of the reasons of items: a stream has no code for each of its items."""


def _ended(code: StatusCode, message: str, initial: Any, trailing: Any, response: Any) -> Answer:
    details = dict(trailing or ()).get(DETAILS, b"")
    CANARIES.saw("an error", details)
    info = error_details_pb2.ErrorInfo()
    for packed in status_pb2.Status.FromString(details).details:
        packed.Unpack(info)
    return Answer(
        code=code,
        message=message or "",
        reason=info.reason,
        details=details,
        initial=tuple(map(tuple, initial or ())),
        trailing=tuple(map(tuple, trailing or ())),
        response=response,
    )
