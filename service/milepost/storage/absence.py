"""Why an operation cannot be had, as far as the asker may know."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from milepost.domain.errors import (
    MilepostError,
    OperationDeleted,
    OperationExpired,
    OperationNotFound,
)
from milepost.domain.transitions import TABLE, Transition
from milepost.storage.queries import last_event

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Concatenate

    from milepost.domain.operation import AccessFilter, OperationId
    from milepost.storage.session import Session

Asked = ParamSpec("Asked")
Found = TypeVar("Found")


def explain_absence(
    session: Session,
    operation_id: OperationId,
    access_filter: AccessFilter,
    request_id: str | None = None,
) -> MilepostError:
    """Return why there is no such operation; only its owner learns more than that.

    A foreign operation and one that never was take this same path, and so the same time.
    """
    rows = session.fetch(last_event(operation_id, access_filter.subject, request_id))
    if not rows:
        return OperationNotFound(operation_id)
    event_type, deleted_by_call, actor = rows[0]
    if event_type == TABLE[Transition.PURGE].event:
        repeatable = deleted_by_call if actor == access_filter.subject else None
        return OperationDeleted(operation_id, request_id=repeatable)
    return OperationExpired(operation_id)


def explained(
    session: Session,
    explain: Callable[Concatenate[Session, Asked], Found],
    *asked: Asked.args,
    **options: Asked.kwargs,
) -> Found | Exception:
    """Return the explanation, or why it failed: what has happened before stays as it is."""
    try:
        return explain(session, *asked, **options)
    except Exception as error:  # noqa: BLE001 - raised for the one caller that it concerns
        return session.failed(error)
