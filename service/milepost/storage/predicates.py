"""Predicates: the WHERE conditions of access, expiry and status that all statements share.

An operation outside of the caller's access filter, or past its expiry, does not exist for the
caller. The condition is part of the statement, so that an operation of another owner and a missing
one take the same path.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.operation import AccessFilter, Status
from milepost.domain.transitions import TABLE, Transition
from milepost.storage.dialects import clock
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from milepost.domain.delivery import DeliveryStatus

_o = operations.c

ACCESS_FILTER: Final[Mapping[str, TypeEngine[Any]]] = {
    "subject": sa.Text(),
    "everything": sa.Boolean(),
    "functions": sa.Text(),
}
"""The inputs of `is_accessible`."""

_NO_FUNCTION: Final = r"\Z."
"""A pattern that matches nothing; NULL would suffice only on PostgreSQL."""


def access_filter_values(access_filter: AccessFilter) -> tuple[str, bool, str]:
    """Return the `ACCESS_FILTER` inputs; grants become one anchored regular expression.

    It avoids ``.``, ``^`` and ``$``, whose meanings in Python and PostgreSQL differ.
    """
    if not access_filter.functions:
        return access_filter.subject, access_filter.everything, _NO_FUNCTION
    alternatives = (
        re.escape(grant[:-1]) if grant.endswith("*") else re.escape(grant) + r"\Z"
        for grant in access_filter.functions
    )
    return access_filter.subject, access_filter.everything, rf"\A({'|'.join(alternatives)})"


def is_accessible(m: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    """Return the condition that an operation is inside the access filter.

    Without a grant, no function is matched: on SQLite a match is a call to Python, whose time would
    reveal that an operation of another owner exists.
    """
    granted = sa.and_(
        m["functions"] != sa.literal_column(f"'{_NO_FUNCTION}'"),
        _o.function.regexp_match(m["functions"]),
    )
    return sa.or_(_o.owner == m["subject"], m["everything"], granted)


def unexpired() -> ColumnElement[bool]:
    """Return the condition that an operation has not expired.

    After its expire_time an operation is invisible if only its purge is left to do. Any other, such
    as a processing one, stays visible until the sweeper has ended it.
    """
    return sa.or_(
        _o.expire_time >= clock(), sa.not_(has_status(operations, TABLE[Transition.PURGE].sources))
    )


def has_status(table: sa.FromClause, statuses: Collection[Status]) -> ColumnElement[bool]:
    """Return the condition that a row, found by other columns, is in one of `statuses`.

    The form keeps the planner from the partial indexes of these statuses: it does not know how many
    rows they have, and would read a whole index.
    """
    return _is_one_of(sa.func.coalesce(table.c.status, sa.literal_column("''")), statuses)


def indexed_status(table: sa.FromClause, statuses: Collection[Status]) -> ColumnElement[bool]:
    """Return the condition that a row is in one of `statuses`, for a partial index."""
    return _is_one_of(table.c.status, statuses)


def ordered_status(
    column: ColumnElement[str], status: Status | DeliveryStatus
) -> ColumnElement[bool]:
    """Return the condition of one status, for an index that is ordered within the status.

    The form keeps the planner from the partial indexes of the status, which have another order.
    """
    return column == sa.select(sa.literal_column(f"'{status}'", sa.Text)).scalar_subquery()


def has_unknown_status() -> ColumnElement[bool]:
    """Return the condition that only a newer release knows the status, for the partial index."""
    # The planner matches it by this form; see `tables.UNKNOWN_STATUS`.
    return _o.status.not_in([sa.literal_column(f"'{status}'") for status in sorted(Status)])


def _is_one_of(column: ColumnElement[str], statuses: Collection[Status]) -> ColumnElement[bool]:
    if not statuses:
        return sa.false()
    texts: list[ColumnElement[str]] = [
        sa.literal_column(f"'{status}'") for status in sorted(statuses)
    ]
    # The planner matches a partial index by this form; see `tables.status_condition`.
    return column == texts[0] if len(texts) == 1 else column.in_(texts)


def literal_access_filter(access_filter: AccessFilter) -> Mapping[str, ColumnElement[Any]]:
    """Return the inputs of `is_accessible` as literals, for a statement that runs once."""
    values = zip(ACCESS_FILTER.items(), access_filter_values(access_filter), strict=True)
    return {name: sa.literal(value, type_) for (name, type_), value in values}
