"""The body of a webhook: an event of an operation, as JSON."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format, struct_pb2
from google.protobuf.message import DecodeError

from milepost.domain.delivery import TEST_EVENT, status_after
from milepost.domain.transitions import TERMINAL

if TYPE_CHECKING:
    from milepost.domain.delivery import ClaimedDelivery, OperationSnapshot
    from milepost.domain.operation import OperationError, Payload

_JSON: Final = {
    kind.DESCRIPTOR.full_name: kind
    for kind in (struct_pb2.Value, struct_pb2.Struct, struct_pb2.ListValue)
}
"""The protobuf types that represent JSON."""

_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


def body_of(claimed: ClaimedDelivery, snapshot: OperationSnapshot) -> bytes:
    """Return the exact bytes that are signed and sent.

    The body shows the operation as it was after the event. It may have changed since, so an event
    before the end has no result, errors or end time.
    """
    status = status_after(claimed.type, snapshot.status)
    data: dict[str, Any] = {
        "operation_id": claimed.operation_id,
        "function": snapshot.function,
        "version": snapshot.version,
        "status": str(status),
        "revision": claimed.revision,
    }
    if status in TERMINAL:
        data |= {
            "result": _result(snapshot.result),
            "errors": [_error(error) for error in snapshot.errors],
        }
    data["create_time"] = _time(snapshot.create_time)
    if status in TERMINAL:
        ends = {"complete_time": snapshot.complete_time, "cancel_time": snapshot.cancel_time}
        data |= {name: _time(end) for name, end in ends.items() if end is not None}
    data |= {
        "original_request_id": snapshot.original_request_id,
        "metadata": None if snapshot.metadata is None else json.loads(snapshot.metadata),
    }
    return _bytes(claimed.type, claimed.create_time, data)


def body_of_test(time: datetime) -> bytes:
    """Return the body of a test webhook, which has no operation."""
    return _bytes(TEST_EVENT, time, {})


def _bytes(event: str, time: datetime, data: dict[str, Any]) -> bytes:
    body = {"type": event, "timestamp": _time(time), "data": data}
    return _encode(body).encode()


def _time(instant: datetime) -> str:
    return instant.astimezone(UTC).isoformat(timespec="microseconds").removesuffix("+00:00") + "Z"


def _error(error: OperationError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "source": error.source,
        "details": None if error.details is None else json.loads(error.details),
    }


def _result(result: Payload | None) -> Any:
    """Return a JSON payload as it is, any other as its type URL and base64 value."""
    if result is None:
        return None
    kind = _JSON.get(result.type_url.rpartition("/")[2])
    if kind is not None:
        try:
            message = kind.FromString(result.value)
            found = json_format.MessageToDict(message)
            json.dumps(found, allow_nan=False)
        except (DecodeError, ValueError, RecursionError, json_format.SerializeToJsonError):
            pass  # not valid JSON: undecodable, or with a number that is not finite
        else:
            return found
    return {"@type": result.type_url, "value": base64.b64encode(result.value).decode()}
