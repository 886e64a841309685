"""Requests that only renew a lease, which no rate limit counts."""

from __future__ import annotations

from typing import Any, Final

from milepost.gen.milepost.v1 import worker_service_pb2 as pb

_UPDATES: Final = (pb.UpdateProgressRequest, pb.StreamProgressRequest, pb.ProgressUpdate)


def renewed_by(request: Any) -> str | None:
    """Return the operation of a progress update that is empty and so only renews its lease."""
    if not isinstance(request, _UPDATES):
        return None
    has = request.HasField
    if has("progress") or has("message") or has("checkpoint"):
        return None
    if isinstance(request, pb.StreamProgressRequest) and request.updates:  # to be refused
        return None
    return request.operation_id
