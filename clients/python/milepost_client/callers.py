"""The calls of callers: create, read, await, watch, cancel and delete an operation."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from datetime import datetime
from typing import Any, Literal, TypeAlias

from milepost_client.connection import Connection
from milepost_client.convert import (
    from_event,
    from_operation,
    to_duration,
    to_retry_policy,
    to_statuses,
    to_struct,
    to_timestamp,
    to_unique_key_policy,
)
from milepost_client.errors import no_result
from milepost_client.gen.milepost.v1 import operation_pb2
from milepost_client.gen.milepost.v1 import operation_service_pb2 as pb
from milepost_client.long_poll import until_terminal
from milepost_client.operation import Json, Operation, OperationEvent, Status
from milepost_client.pace import Duration, seconds
from milepost_client.pages import pages
from milepost_client.watch import changes

UniqueKeyPolicy: TypeAlias = Literal["join", "refuse"]
"""The treatment of a create whose key an active operation has: that one is returned, or refused."""


class Callers(Connection):
    """The calls of a caller. Each may also raise the errors that concern no single operation.

    These are `InvalidRequest`, `Unauthenticated`, `PermissionDenied`, `LimitReached`,
    `Unavailable`, `DeadlineExceeded` and `InternalError`.

    A call that takes a `request_id` makes a new one if none is given. Pass your own to make the
    call repeatable over a restart of your program.
    """

    async def create(
        self,
        function: str,
        *,
        version: str | None = None,
        metadata: Mapping[str, Json] | None = None,
        ttl: Duration | None = None,
        retry_after: Duration | None = None,
        schedule_time: datetime | None = None,
        priority: int | None = None,
        unique_key: str | None = None,
        unique_key_policy: UniqueKeyPolicy | None = None,
        max_attempts: int | None = None,
        initial_backoff: Duration | None = None,
        backoff_multiplier: float | None = None,
        max_backoff: Duration | None = None,
        queue_timeout: Duration | None = None,
        run_timeout: Duration | None = None,
        callback_url: str | None = None,
        callback_events: Iterable[str] = (),
        original_request_id: str | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Create an operation, or return the one that an earlier call with this `request_id` made.

        `replayed` is True in the second case. `joined` is True if the answer is an active operation
        with the same `unique_key`.

        Args:
            function: The name of the work, such as ``video.transcode``.
            version: The version of the function.
            metadata: Data of your own, kept with the operation.
            ttl: The time to keep the operation; 24 hours by default.
            retry_after: The suggested pause between two reads; 5 seconds by default.
            schedule_time: The time before which no worker gets it, at most 30 days ahead.
            priority: 0 to 9: among your pending operations, a higher one is claimed first; 5 by
                default.
            unique_key: A name of the work, which at most one of your active operations has.
            unique_key_policy: If an active operation has the key: ``"join"``, the default, returns
                that operation, and ``"refuse"`` raises `UniqueKeyTaken`.
            max_attempts: The number of failed attempts after which it fails; 3 by default.
            initial_backoff: The pause after the first failed attempt; 1 second by default.
            backoff_multiplier: The factor between two pauses, 1 to 10; 2 by default.
            max_backoff: The longest pause; 5 minutes by default.
            queue_timeout: The time after which it fails if no worker has claimed it.
            run_timeout: The maximum duration of one attempt, which has failed then.
            callback_url: The URL that receives webhooks.
            callback_events: The events to send; by default every terminal status.
            original_request_id: The request, in your own terms, that led to this operation.
            request_id: Makes the call repeatable.

        Raises:
            RequestIdReused: The `request_id` created an operation with other content.
            UniqueKeyTaken: An active operation has the key, and the policy is ``"refuse"``.
            ValueError: `schedule_time` has no time zone, or the policy is unknown.
            QuotaExceeded: Too many of your operations are active.
            WebhooksNotConfigured: This service sends no webhooks.
        """
        calls = self._calls
        request = pb.CreateOperationRequest(
            function=function,
            version=version,
            metadata=None if metadata is None else to_struct(metadata),
            ttl=to_duration(ttl),
            retry_after=to_duration(retry_after),
            schedule_time=to_timestamp(schedule_time),
            priority=priority,
            unique_key=unique_key,
            unique_key_policy=to_unique_key_policy(unique_key_policy),
            max_attempts=max_attempts,
            retry_policy=to_retry_policy(initial_backoff, backoff_multiplier, max_backoff),
            queue_timeout=to_duration(queue_timeout),
            run_timeout=to_duration(run_timeout),
            callback_url=callback_url,
            callback_events=callback_events,
            original_request_id=original_request_id,
            request_id=request_id,
        )
        answer = await calls.send(calls.operations.CreateOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed, joined=answer.joined)

    async def get(self, operation_id: str) -> Operation:
        """Return the present state of the operation.

        Raises:
            OperationNotFound: The operation does not exist, or is not visible to you.
        """
        calls = self._calls
        request = pb.GetOperationRequest(operation_id=operation_id)
        answer = await calls.send(calls.operations.GetOperation, request)
        return from_operation(answer.operation)

    async def wait(self, operation_id: str, timeout: Duration | None = None) -> Operation:
        """Wait until the operation is terminal, or the timeout has passed.

        Return its state at that time; check its status. The timeout bounds the wait, and the last
        call may take a deadline longer. Without a timeout, the wait is unbounded.

        Raises:
            OperationNotFound: The operation does not exist, is not visible to you, or was removed.
        """
        calls = self._calls

        async def wait(waiting: float) -> Operation:
            request = pb.WaitOperationRequest(
                operation_id=operation_id, timeout=to_duration(waiting)
            )
            answer = await calls.send(calls.operations.WaitOperation, request, waiting=waiting)
            return from_operation(answer.operation)

        return await until_terminal(wait, None if timeout is None else seconds(timeout))

    async def watch(self, operation_id: str, after_revision: int = 0) -> AsyncIterator[Operation]:
        """Iterate over the changes of the operation, up to its end.

        The first item is the present state, if its revision is higher than `after_revision`. Then
        every change of status follows exactly once, in the order of revisions, and between them
        the newest progress. A lost connection, or a service that is unavailable for a while, only
        delays: the next connection continues after the last revision.

        Args:
            operation_id: The operation.
            after_revision: The last revision that you know. The changes of status since then come
                one by one, from the stored events: without progress, worker and lease.

        Raises:
            OperationNotFound: The operation does not exist, is not visible to you, or was removed.
            RevisionAhead: The operation has not reached the last revision that you know, or has no
                longer: the database was restored from a backup.
            Unavailable: The service could not be reached, or was unavailable for 5 minutes.
        """
        async with aclosing(changes(self._calls, operation_id, after_revision)) as operations:
            async for operation in operations:
                yield operation

    async def result(self, operation_id: str, timeout: Duration | None = None) -> Any:
        """Wait for the end of the operation and return its result.

        JSON is returned as plain values, whole numbers as `int`; any other message as the
        ``google.protobuf.Any`` that holds it. None means no result.

        Raises:
            OperationFailed: It failed; `errors` holds the reasons.
            OperationCancelled: It was cancelled.
            StillRunning: It had not ended when the timeout passed. Also a `TimeoutError`.
            OperationNotFound: The operation does not exist, is not visible to you, or was removed.
        """
        operation = await self.wait(operation_id, timeout)
        if operation.status is not Status.COMPLETED:
            raise no_result(operation)
        return operation.result

    async def cancel(
        self,
        operation_id: str,
        reason: str | None = None,
        *,
        grace: Duration | None = None,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> Operation:
        """Cancel the operation. Without a grace, it can no longer be completed.

        Its worker is notified on its progress stream, or by the answer to its next write. With a
        grace, a worker that processes it may first end it in its own way: it acknowledges the
        cancel, completes or fails the operation. At the end of the grace it is cancelled.

        Args:
            operation_id: The operation.
            reason: The reason, as a text.
            grace: The time that its worker gets, at most 1 hour; none by default.
            expected_revision: Cancel it only if it still has this revision.
            request_id: Makes the call repeatable.

        Raises:
            IllegalTransition: It has ended already.
            RevisionMismatch: Its revision is not `expected_revision`.
            OperationNotFound: The operation does not exist, or is not visible to you.
        """
        calls = self._calls
        request = pb.CancelOperationRequest(
            operation_id=operation_id,
            reason=reason,
            grace=to_duration(grace),
            expected_revision=expected_revision,
            request_id=request_id,
        )
        answer = await calls.send(calls.operations.CancelOperation, request)
        return from_operation(answer.operation, replayed=answer.replayed)

    async def events(
        self, operation_id: str, *, page_size: int = 100
    ) -> AsyncIterator[OperationEvent]:
        """Iterate over the history of the operation, oldest first, over all pages.

        It has every change of status, and every request to cancel, with the errors of failed
        attempts; no progress.

        A rate limit refuses the first page, and delays each of the others for up to 5 minutes.

        Args:
            operation_id: The operation.
            page_size: The number of events of one call, 1 to 100.

        Raises:
            OperationNotFound: The operation does not exist, or is not visible to you.
        """
        calls = self._calls
        request = pb.ListEventsRequest(operation_id=operation_id, page_size=page_size)
        async for page in pages(calls, calls.operations.ListEvents, request):
            for event in page.events:
                yield from_event(event)

    async def delete(
        self,
        operation_id: str,
        *,
        expected_revision: int | None = None,
        request_id: str | None = None,
    ) -> None:
        """Delete an ended operation, with its result.

        Args:
            operation_id: The operation.
            expected_revision: Delete it only if it still has this revision.
            request_id: Makes the call repeatable.

        Raises:
            IllegalTransition: It has not ended.
            RevisionMismatch: Its revision is not `expected_revision`.
            OperationNotFound: The operation does not exist, or is not visible to you.
        """
        calls = self._calls
        request = pb.DeleteOperationRequest(
            operation_id=operation_id,
            expected_revision=expected_revision,
            request_id=request_id,
        )
        await calls.send(calls.operations.DeleteOperation, request)

    async def list(
        self,
        *,
        statuses: Iterable[Status] = (),
        function: str | None = None,
        created_from: datetime | None = None,
        created_before: datetime | None = None,
        owner: str | None = None,
        full: bool = False,
        page_size: int = 100,
    ) -> AsyncIterator[Operation]:
        """Iterate over your operations that match all arguments, newest first, over all pages.

        A rate limit refuses the first page, and delays each of the others for up to 5 minutes.

        Args:
            statuses: The statuses to include; empty means all.
            function: The function of the operations.
            created_from: The earliest time of creation.
            created_before: The time before which they were created.
            owner: The owner, which only an admin may name; for an admin, None means all.
            full: Include `metadata`, `result`, `errors` and `checkpoint`, which may be large.
            page_size: The number of operations of one call, 1 to 100.

        Raises:
            ValueError: A time has no time zone, or a status is UNKNOWN.
        """
        calls = self._calls
        request = pb.ListOperationsRequest(
            statuses=to_statuses(statuses),
            function=function,
            create_time_from=to_timestamp(created_from),
            create_time_to=to_timestamp(created_before),
            owner=owner,
            view=operation_pb2.OPERATION_VIEW_FULL if full else operation_pb2.OPERATION_VIEW_BASIC,
            page_size=page_size,
        )
        async for page in pages(calls, calls.operations.ListOperations, request):
            for operation in page.operations:
                yield from_operation(operation)
