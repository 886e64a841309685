"""The request of a create to the domain value: checks that report every violated field at once."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from milepost.api.convert import Fields
from milepost.domain.operation import CreateRequest
from milepost.domain.transitions import CALLBACK_EVENTS
from milepost.gen.milepost.v1 import operation_service_pb2 as pb

if TYPE_CHECKING:
    from google.protobuf import struct_pb2


class CreateFields(Fields):
    """Reader of the fields of a CreateOperationRequest."""

    def create_request(self) -> CreateRequest:
        """Return the operation to create."""
        return CreateRequest(
            function=self.name("function", required=True) or "",
            version=self.name("version"),
            metadata=self.metadata(),
            original_request_id=self.name("original_request_id"),
            callback_url=self.callback_url(),
            callback_events=self.callback_events(),
            ttl=self.duration("ttl"),
            retry_after=self.duration("retry_after"),
            max_attempts=self.optional("max_attempts"),
            request_id=self.request_id(),
            schedule_time=self._schedule_time(),
            priority=self._priority(),
            unique_key=self.text("unique_key", self._limits.unique_key_length),
            refuses_to_join=self._refuses_to_join(),
            queue_timeout=self.duration("queue_timeout"),
            run_timeout=self.duration("run_timeout"),
            **self._retry_policy(),
        )

    def _schedule_time(self) -> datetime | None:
        value = self.instant("schedule_time")
        longest = self._limits.schedule_max
        # The clock of the database decides when it is due; this bound need not be exact.
        if value is not None and value > datetime.now(UTC) + longest:
            self.refuse("schedule_time", f"must be at most {longest.days} days ahead")
        return value

    def _priority(self) -> int | None:
        value: int | None = self.optional("priority")
        highest = self._limits.priority_max
        if value is not None and not 0 <= value <= highest:
            self.refuse("priority", f"must be from 0 to {highest}, found {value}")
        return value

    def _refuses_to_join(self) -> bool:
        policy = self._request.unique_key_policy
        if policy not in pb.UniqueKeyPolicy.values():
            self.refuse("unique_key_policy", f"is not a policy: {policy}")
        return bool(policy == pb.UNIQUE_KEY_POLICY_REFUSE)

    def _retry_policy(self) -> dict[str, Any]:
        """Return the parts of the retry policy; absent ones are None."""
        if not self._request.HasField("retry_policy"):
            return {}
        policy = Fields(self._request.retry_policy, self._limits)
        multiplier = policy.optional("backoff_multiplier")
        if multiplier is not None and not math.isfinite(multiplier):
            policy.refuse("backoff_multiplier", f"must be a finite number, found {multiplier}")
        parts = {
            "initial_backoff": policy.duration("initial_backoff"),
            "backoff_multiplier": multiplier,
            "max_backoff": policy.duration("max_backoff"),
        }
        for violation in policy.violations:
            self.refuse(f"retry_policy.{violation.field}", violation.problem)
        return parts

    def metadata(self) -> str | None:
        """Return the metadata of the caller as JSON."""
        value: struct_pb2.Struct | None = self.optional("metadata")
        if value is None:
            return None
        text = self.json("metadata", value)
        if text is not None and len(text.encode()) > self._limits.metadata_bytes:
            self.refuse(
                "metadata",
                f"must be at most {self._limits.metadata_bytes} bytes of JSON,"
                f" found {len(text.encode())}",
            )
        return text

    def callback_events(self) -> tuple[str, ...]:
        """Return the types of the events to send webhooks for."""
        given = tuple(self._request.callback_events)
        for n, event in enumerate(given):
            if event not in CALLBACK_EVENTS:
                self.refuse(f"callback_events[{n}]", f"must be one of {', '.join(CALLBACK_EVENTS)}")
        return tuple(sorted(set(given)))
