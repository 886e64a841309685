"""Requests to domain values: shape checks that report every violated field at once.

The checks concern lengths, patterns and sizes. They run before any data is read, so a violation
discloses nothing about stored data.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import any_pb2, duration_pb2, struct_pb2, timestamp_pb2

from milepost.api.messages import STATUS_NUMBERS
from milepost.api.structs import to_json
from milepost.domain.callback_url import RefusedUrl
from milepost.domain.errors import InvalidRequest, Violation
from milepost.domain.operation import (
    ID_LENGTH,
    ID_PATTERN,
    OperationError,
    OperationId,
    Payload,
    Status,
)
from milepost.domain.selection import Selection
from milepost.domain.transitions import Preconditions
from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.hostnames import ascii_url

if TYPE_CHECKING:
    from milepost.domain.limits import Limits

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9_.:-]{1,255}")
MAX_VIOLATIONS: Final = 50
"""Violations of one request that are kept; further ones are counted. No more fit into a refusal."""
UNDECODABLE: Final = Violation("request", "is not a message of its type, or is nested too deep")
"""The violation of a request that protobuf cannot decode."""
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


class Fields:
    """Reader of the fields of one request, which collects their violations."""

    def __init__(self, request: Any, limits: Limits) -> None:
        """Read `request`, against `limits`."""
        self._request = request
        self._limits = limits
        self.violations: list[Violation] = []
        """The violations so far."""
        self._omitted = 0

    def refuse(self, field: str, problem: str) -> None:
        """Record a violation of `field`."""
        if len(self.violations) < MAX_VIOLATIONS:
            self.violations.append(Violation(field, problem))
        else:
            self._omitted += 1

    def done(self) -> None:
        """Raise `InvalidRequest` if there are violations."""
        if self.violations:
            raise InvalidRequest(*self.violations, omitted=self._omitted)

    def operation_id(self) -> OperationId:
        """Return the id of the operation."""
        return self._id("operation_id", self._request.operation_id)

    def _id(self, field: str, value: str) -> OperationId:
        if len(value) != ID_LENGTH:
            self.refuse(field, f"wrong format: expected {ID_LENGTH} characters, found {len(value)}")
        elif ID_PATTERN.fullmatch(value) is None:
            self.refuse(field, f"wrong format: must match {ID_PATTERN.pattern}, matched whole")
        return OperationId(value)

    def callback_url(self, *, required: bool = False) -> str | None:
        """Return a callback URL with its host in ASCII. The rules for its text come later."""
        value = self.text("callback_url", self._limits.callback_url_length, required=required)
        try:
            return None if value is None else ascii_url(value)
        except RefusedUrl as refused:
            self.refuse("callback_url", refused.problem)
            return value

    def preconditions(self) -> Preconditions:
        """Return the preconditions of a transition."""
        return Preconditions(
            request_id=self.request_id(),
            expected_revision=self.positive("expected_revision"),
            attempt=self.positive("attempt") if hasattr(self._request, "attempt") else None,
        )

    def request_id(self) -> str | None:
        """Return the `request_id`, or None if it is not set."""
        value: str | None = self.optional("request_id")
        if value is not None and REQUEST_ID.fullmatch(value) is None:
            self.refuse("request_id", f"must match {REQUEST_ID.pattern}, matched whole")
        return value

    def optional(self, field: str) -> Any:
        """Return the value of a field, or None if it is not set."""
        return getattr(self._request, field) if self._request.HasField(field) else None

    def positive(self, field: str) -> int | None:
        """Return an integer of at least 1, or None if it is not set."""
        value: int | None = self.optional(field)
        if value is not None and value < 1:
            self.refuse(field, "must be at least 1")
        return value

    def text(self, field: str, max_length: int, *, required: bool = False) -> str | None:
        """Return a line of text that is not blank, of at most `max_length` characters."""
        value: str | None = getattr(self._request, field) if required else self.optional(field)
        if value is not None:
            self._line(field, value, max_length)
        return value

    def _line(self, field: str, value: str, max_length: int) -> None:
        if not value.strip():
            self.refuse(field, "must not be blank")
        elif len(value) > max_length:
            self.refuse(field, f"must be at most {max_length} characters, found {len(value)}")
        elif _CONTROL.search(value):
            self.refuse(field, "must not contain control characters")

    def name(self, field: str, *, required: bool = False) -> str | None:
        """Return the name of a function, version or worker, or an `original_request_id`."""
        return self.text(field, self._limits.name_length, required=required)

    def reason(self) -> str | None:
        """Return the reason of a transition, shown to people."""
        return self.text("reason", self._limits.reason_length)

    def message(self) -> str | None:
        """Return a progress message, which may be empty or have several lines."""
        value: str | None = self.optional("message")
        max_length = self._limits.message_length
        if value is not None and len(value) > max_length:
            self.refuse("message", f"must be at most {max_length} characters, found {len(value)}")
        elif value is not None and "\0" in value:
            self.refuse("message", "must not contain NUL characters")
        return value

    def progress(self) -> float | None:
        """Return progress, clamped to 0.0…1.0."""
        value: float | None = self.optional("progress")
        if value is None:
            return None
        if not math.isfinite(value):
            self.refuse("progress", f"must be a number from 0 to 1, found {value}")
        return min(max(0.0, value), 1.0)  # in this order -0.0 becomes 0.0

    def duration(self, field: str) -> timedelta | None:
        """Return a duration of any size, which the limits clamp later."""
        value: duration_pb2.Duration | None = self.optional(field)
        if value is None:
            return None
        if abs(value.seconds) > _MAX_SECONDS or abs(value.nanos) >= 10**9:
            self.refuse(field, "is not a valid duration")
            return None
        return timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)

    def timeout(self) -> timedelta | None:
        """Return the maximum duration of a wait, at least 0, or None if it is not set."""
        value = self.duration("timeout")
        if value is not None and value < timedelta():
            self.refuse("timeout", "must not be negative")
        return value

    def after_revision(self) -> int:
        """Return the last revision that the caller has seen; 0 for none."""
        value: int = self._request.after_revision
        if value < 0:
            self.refuse("after_revision", "must not be negative")
        return value

    def instant(self, field: str) -> datetime | None:
        """Return a point in time, or None if it is not set."""
        value: timestamp_pb2.Timestamp | None = self.optional(field)
        if value is None:
            return None
        try:
            return value.ToDatetime(tzinfo=UTC)
        except (ValueError, OverflowError):
            self.refuse(field, "is not a valid timestamp")
            return None

    def json(self, field: str, value: struct_pb2.Struct) -> str | None:
        """Return a Struct as compact JSON text."""
        try:
            return to_json(value, self._limits.nesting_levels)
        except ValueError as problem:
            self.refuse(field, str(problem))
            return None

    def result(self) -> Payload | None:
        """Return the packed result."""
        return self._packed("result", self._limits.result_bytes)

    def checkpoint(self) -> Payload | None:
        """Return the packed checkpoint."""
        return self._packed("checkpoint", self._limits.checkpoint_bytes)

    def _packed(self, field: str, max_bytes: int) -> Payload | None:
        value: any_pb2.Any | None = self.optional(field)
        if value is None:
            return None
        if not value.type_url or _CONTROL.search(value.type_url):
            self.refuse(field, "must be a packed message with a type_url")
        elif len(value.type_url) > self._limits.type_url_length:
            self.refuse(
                field,
                f"must have a type_url of at most {self._limits.type_url_length} characters,"
                f" found {len(value.type_url)}",
            )
        if len(value.value) > max_bytes:
            self.refuse(field, f"must be at most {max_bytes} bytes, found {len(value.value)}")
        return Payload(type_url=value.type_url, value=value.value)

    def retry_delay(self) -> timedelta | None:
        """Return the delay of the next attempt, which only a retryable failure has."""
        delay = self.duration("retry_delay")
        if delay is not None and not self._request.retryable:
            self.refuse("retry_delay", "must be absent unless retryable is set")
        return delay

    def errors(self) -> tuple[OperationError, ...]:
        """Return at least one error, each with a code and a message."""
        given = self._request.errors
        if not given:
            self.refuse("errors", "must name at least one error")
        size = sum(error.ByteSize() for error in given)
        if size > self._limits.errors_bytes:
            self.refuse(
                "errors", f"must be at most {self._limits.errors_bytes} bytes, found {size}"
            )
        return tuple(self._error(f"errors[{n}]", error) for n, error in enumerate(given))

    def _error(self, field: str, error: pb.OperationError) -> OperationError:
        for name in ("code", "message"):
            if not getattr(error, name).strip():
                self.refuse(f"{field}.{name}", "must not be blank")
        return OperationError(
            code=error.code,
            message=error.message,
            source=error.source if error.HasField("source") else None,
            details=self.json(f"{field}.details", error.details)
            if error.HasField("details")
            else None,
        )

    def selection(self) -> Selection:
        """Return the filters of a list of operations."""
        statuses = tuple(
            status
            for n, number in enumerate(self._request.statuses)
            if (status := self._status(f"statuses[{n}]", number)) is not None
        )
        return Selection(
            statuses=tuple(sorted(set(statuses))),
            function=self.name("function"),
            owner=self.name("owner"),
            create_time_from=self.instant("create_time_from"),
            create_time_to=self.instant("create_time_to"),
        )

    def _status(self, field: str, number: int) -> Status | None:
        status = _STATUS_OF.get(number)
        if status is None:
            self.refuse(field, f"is not a status: {number}")
        return status

    def page_size(self) -> int:
        """Return the size of a page, at most the maximum; 0 means the default."""
        value: int = self._request.page_size
        if value < 0:
            self.refuse("page_size", f"must not be negative, found {value}")
        return min(value, self._limits.page_size_max)

    def functions(self) -> tuple[str, ...]:
        """Return the distinct functions of a claim."""
        given = tuple(dict.fromkeys(self._request.functions))
        max_functions = self._limits.claim_functions
        if not 1 <= len(given) <= max_functions:
            self.refuse(
                "functions", f"must name 1 to {max_functions} functions, found {len(given)}"
            )
        for n, function in enumerate(given[:max_functions]):
            self._line(f"functions[{n}]", function, self._limits.name_length)
        return given

    def max_operations(self) -> int:
        """Return the maximum number of operations of a claim; 0 means 1."""
        value: int = self._request.max_operations
        limit = self._limits.claim_operations
        if not 0 <= value <= limit:
            self.refuse("max_operations", f"must be from 0 to {limit}, found {value}")
        return value or 1

    def full_view(self) -> bool:
        """Return True for the FULL view."""
        if self._request.view not in pb.OperationView.values():
            self.refuse("view", f"is not a view: {self._request.view}")
        return bool(self._request.view == pb.OPERATION_VIEW_FULL)


_MAX_SECONDS: Final = 315_576_000_000
"""Range of google.protobuf.Duration: ten thousand years."""
_STATUS_OF: Final = {int(number): status for status, number in STATUS_NUMBERS.items()}
