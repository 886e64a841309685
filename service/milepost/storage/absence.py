"""The error for an operation that a caller cannot have, as far as the caller may know."""

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

Args = ParamSpec("Args")
Found = TypeVar("Found")


def explain_absence(
    session: Session,
    operation_id: OperationId,
    access_filter: AccessFilter,
    request_id: str | None = None,
) -> MilepostError:
    """Return why the operation is not accessible; only its owner gets more than "not found".

    An operation of another owner and one that never existed take the same path, in the same time.
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
    explain: Callable[Concatenate[Session, Args], Found],
    *args: Args.args,
    **kwargs: Args.kwargs,
) -> Found | Exception:
    """Return the result of `explain`, or its error: a failure undoes no earlier change."""
    try:
        return explain(session, *args, **kwargs)
    except Exception as error:  # noqa: BLE001 - only this caller gets it
        return session.failed(error)
