"""The ids in a request or response, for the log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milepost.access.audit import ID_PATTERNS, redacted_ids
from milepost.api.google_messages import COLLECTION
from milepost.gen.milepost.v1 import admin_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Mapping


def logged_ids(message: Any) -> Mapping[str, str]:
    """Return the ids in `message`, a request or a response, redacted."""
    return redacted_ids(ids_of(message))


def ids_of(message: Any) -> Mapping[str, str]:
    """Return the ids in `message` as the caller wrote them; a stream of messages has none."""
    ids = {
        field: getattr(message, field, "") or getattr(_api_key(message), field, "")
        for field in ID_PATTERNS
    }
    if name := getattr(message, "name", ""):  # of google.longrunning
        ids["operation_id"] = name.removeprefix(f"{COLLECTION}/")
    return ids


def audited_ids(request: Any, response: Any) -> Mapping[str, object]:
    """Return what the audit line of a call says it was about."""
    return {**logged_ids(request), **logged_ids(response), **_granted(response)}


def _granted(response: Any) -> Mapping[str, object]:
    """Return the subject and the grants of the API key in a response; empty if it has none."""
    key = _api_key(response)
    if key is None:
        return {}
    until = {"expire_time": key.expire_time.ToJsonString()} if key.HasField("expire_time") else {}
    return {
        "subject": key.subject,
        "roles": " ".join(pb.Role.Name(role).removeprefix("ROLE_") for role in key.roles),
        "functions": " ".join(key.functions),
        **until,
    }


def _api_key(message: Any) -> Any:
    return getattr(message, "api_key", None)
