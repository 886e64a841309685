"""Requests that only renew a lease, which no rate limit counts."""

from __future__ import annotations

from typing import Any

from milepost.gen.milepost.v1 import worker_service_pb2 as pb


def renewed_by(request: Any) -> str | None:
    """Return the operation of a progress update that is empty and so only renews its lease."""
    if not isinstance(request, (pb.UpdateProgressRequest, pb.StreamProgressRequest)):
        return None
    if any(request.HasField(name) for name in ("progress", "message", "checkpoint")):
        return None
    return request.operation_id
