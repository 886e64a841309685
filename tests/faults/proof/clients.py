"""Clients that record each of their calls, and repeat those whose outcome is unknown."""

import asyncio
import itertools
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

import grpc
from google.protobuf.message import Message

from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.gen.milepost.v1 import worker_service_pb2 as worker_pb
from tests.e2e.rpcs import BY_METHOD
from tests.faults.proof.history import DEFECTS, Call, History, Outcome, View, Watched
from tests.faults.proof.transports import (
    CALL_S,
    Grpc,
    Http,
    RefusedCall,
    Transport,
    UnknownOutcome,
    metadata,
    outcome_of,
)

PAUSE_S: Final = 0.05
"""Pause before a call with an unknown outcome is repeated."""
GIVE_UP_S: Final = 120.0
"""Time after which a client gives up: something is stuck."""
WATCH_S: Final = 5.0
"""Deadline of one connection of a watch, which is resumed after it."""
LOST_RACE: Final = "LOST_RACE"
"""The refusal of a change that another one overtook, and that may be asked for again."""
_LABELS: Final = {
    ("FailOperation", "retryable"): "RetryOperation",
    ("CancelOperation", "grace"): "RequestCancel",
}
_STREAM: Final = BY_METHOD["StreamProgress"]
_WATCH: Final = BY_METHOD["WatchOperation"]


class Client:
    """One principal, which calls all replicas in turn by chance."""

    def __init__(
        self,
        subject: str,
        key: str,
        grpcs: Sequence[Grpc],
        https: Sequence[Http],
        history: History,
        *,
        dice: random.Random,
    ) -> None:
        self.subject = subject
        self.key = key
        self.history = history
        self._ways: dict[str, Sequence[Transport]] = {"grpc": grpcs, "http": https}
        self._grpcs = grpcs
        self._dice = dice
        self._numbers = itertools.count(1)

    def new_request_id(self) -> str:
        """Return a request_id that is new for this client; others use the same ones."""
        return f"request-{next(self._numbers)}"

    async def change(self, method: str, *, via: str = "grpc", **fields: Any) -> Any:
        """Return the answer to a change, which happens once however often it is repeated.

        Raises:
            RefusedCall: it did not happen.
        """
        return await self.ask(method, via=via, request_id=self.new_request_id(), **fields)

    async def ask(self, method: str, *, via: str = "grpc", **fields: Any) -> Any:
        """Return the answer to a call, which is repeated until its outcome is known."""
        give_up = time.monotonic() + GIVE_UP_S
        while True:
            try:
                return await self.once(method, self._dice.choice(self._ways[via]), **fields)
            except RefusedCall as refused:
                if refused.reason != LOST_RACE:
                    raise
            except UnknownOutcome as unknown:
                if str(unknown) in DEFECTS:
                    raise RefusedCall(str(unknown)) from unknown
                if time.monotonic() > give_up:
                    raise TimeoutError(f"{method} of {self.subject}: {unknown}") from unknown
            await asyncio.sleep(PAUSE_S)

    async def once(self, method: str, transport: Transport, **fields: Any) -> Any:
        """Return the answer to one call, and record it."""
        begin = time.monotonic()
        outcome, reason, answer = Outcome.DONE, "", None
        try:
            answer = await transport.call(method, self.key, **fields)
        except RefusedCall as refused:
            outcome, reason = Outcome.REFUSED, refused.reason
            raise
        except UnknownOutcome as unknown:
            outcome, reason = Outcome.UNKNOWN, str(unknown)
            raise
        finally:
            self.history.calls.append(
                Call(
                    client=self.subject,
                    method=_label(method, fields),
                    via=transport.name,
                    begin=begin,
                    end=time.monotonic(),
                    outcome=outcome,
                    reason=reason,
                    replayed=bool(getattr(answer, "replayed", False)),
                    views=views_of(answer),
                    **_asked(fields),
                )
            )
        return answer

    # --- streams ---

    async def report(self, operation_id: str, attempt: int, reports: Sequence[float]) -> None:
        """Report progress over streams, until each report is acknowledged.

        Raises:
            RefusedCall: the worker was interrupted, or a report was refused.
        """
        left = list(reports)
        while left:
            stream = _STREAM.on(self._dice.choice(self._grpcs).channel)(metadata=metadata(self.key))
            try:
                while left:
                    await self._report_once(stream, operation_id, attempt, left[0])
                    left.pop(0)
            except UnknownOutcome:
                await asyncio.sleep(PAUSE_S)
            finally:
                stream.cancel()

    async def _report_once(
        self, stream: Any, operation_id: str, attempt: int, progress: float
    ) -> None:
        begin = time.monotonic()
        outcome, reason = Outcome.UNKNOWN, ""
        views: tuple[View, ...] = ()
        try:
            acknowledgement = await _acknowledged(stream, operation_id, attempt, progress)
            outcome, views = Outcome.DONE, (_acknowledged_view(acknowledgement),)
        except (RefusedCall, UnknownOutcome) as error:
            outcome = Outcome.REFUSED if isinstance(error, RefusedCall) else Outcome.UNKNOWN
            reason = str(error)
            raise
        finally:
            self.history.calls.append(
                Call(
                    client=self.subject,
                    method="StreamProgress",
                    via="stream",
                    begin=begin,
                    end=time.monotonic(),
                    outcome=outcome,
                    reason=reason,
                    operation_id=operation_id,
                    attempt=attempt,
                    progress=progress,
                    views=views,
                )
            )

    # --- watches ---

    async def watch(self, operation_id: str, after: int) -> None:
        """Watch an operation to its end, over as many connections as that takes.

        It begins after a revision that is known, or with the operation as it is for 0.
        """
        watched = Watched(
            client=self.subject, operation_id=operation_id, begin=time.monotonic(), after=after
        )
        self.history.watches.append(watched)
        while not watched.gone and not _has_ended(watched):
            last = watched.views[-1].revision if watched.views else after
            request = _WATCH.request(operation_id=operation_id, after_revision=last)
            channel = self._dice.choice(self._grpcs).channel
            call = _WATCH.on(channel)(request, metadata=metadata(self.key), timeout=WATCH_S)
            try:
                async for item in call:
                    if item.HasField("operation"):
                        watched.views.append(view_of(item.operation))
            except grpc.aio.AioRpcError as error:
                refusal = outcome_of(error)
                watched.gone = getattr(refusal, "reason", "") == "OPERATION_DELETED"
            await asyncio.sleep(PAUSE_S)


async def _acknowledged(stream: Any, operation_id: str, attempt: int, progress: float) -> Any:
    request = worker_pb.StreamProgressRequest(
        operation_id=operation_id, attempt=attempt, progress=progress
    )
    try:
        async with asyncio.timeout(CALL_S):
            await stream.write(request)
            response = await stream.read()
    except (TimeoutError, asyncio.InvalidStateError) as error:
        raise UnknownOutcome(type(error).__name__) from None
    except grpc.aio.AioRpcError as error:
        raise outcome_of(error) from None
    if response is grpc.aio.EOF:
        raise UnknownOutcome("the stream has ended")
    item = response.WhichOneof("item")
    if item == "interruption":
        raise RefusedCall(worker_pb.InterruptionKind.Name(response.interruption.kind))
    if item == "error":
        unavailable = response.error.reason in {"STORE_UNAVAILABLE", "OVERLOADED", LOST_RACE}
        raise (UnknownOutcome if unavailable else RefusedCall)(response.error.reason)
    return response.acknowledgement


def _has_ended(watched: Watched) -> bool:
    return bool(watched.views) and watched.views[-1].status in {"COMPLETED", "FAILED", "CANCELLED"}


def _label(method: str, fields: dict[str, Any]) -> str:
    return next(
        (label for (name, field), label in _LABELS.items() if name == method and fields.get(field)),
        method,
    )


def _asked(fields: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that the checker needs."""
    lease, result = fields.get("lease"), fields.get("result")
    return {
        **{
            name: fields.get(name) for name in ("operation_id", "request_id", "attempt", "progress")
        },
        "lease_s": None if lease is None else lease.seconds + lease.nanos / 1e9,
        "result": None if result is None else result.value,
        "callback": "callback_url" in fields,
    }


def views_of(answer: Message | None) -> tuple[View, ...]:
    """Return the operations that a response shows."""
    if answer is None:
        return ()
    if "operations" in answer.DESCRIPTOR.fields_by_name:
        return tuple(view_of(each) for each in getattr(answer, "operations"))  # noqa: B009
    if "operation" in answer.DESCRIPTOR.fields_by_name:
        return (view_of(getattr(answer, "operation")),)  # noqa: B009
    return ()


def view_of(operation: pb.Operation) -> View:
    """Return what an operation shows."""
    status = pb.OperationStatus.Name(operation.status).removeprefix("OPERATION_STATUS_")
    return View(
        id=operation.id,
        revision=operation.revision,
        attempt=operation.attempt,
        status=status,
        owner=operation.owner,
        progress=operation.progress if operation.HasField("progress") else None,
        start_time=_time(operation, "start_time"),
        progress_time=_time(operation, "progress_time"),
        lease_expire_time=_time(operation, "lease_expire_time"),
    )


def _acknowledged_view(acknowledgement: worker_pb.Acknowledgement) -> View:
    return View(
        id=acknowledgement.operation_id,
        revision=acknowledgement.revision,
        attempt=acknowledgement.attempt,
        lease_expire_time=_time(acknowledgement, "lease_expire_time"),
    )


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    found: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return found
