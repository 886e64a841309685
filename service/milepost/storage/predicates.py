"""Who may touch what: the WHERE conditions that every statement shares.

What is outside the asker's scope, or past its time, does not exist for it: the condition is part
of the one statement, so that a foreign operation and a missing one take the same path.
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

_o = operations.c

ACCESS_FILTER: Final[Mapping[str, TypeEngine[Any]]] = {
    "subject": sa.Text(),
    "everything": sa.Boolean(),
    "functions": sa.Text(),
}
"""The inputs of `is_accessible`."""

_NO_FUNCTION: Final = r"\Z."
"""A pattern that matches nothing; NULL would do on PostgreSQL alone."""


def access_filter_values(access_filter: AccessFilter) -> tuple[str, bool, str]:
    """Return the `ACCESS_FILTER` inputs; grants become one anchored regular expression.

    It means the same to Python and to PostgreSQL: no ``.``, ``^`` and ``$``, which do not.
    """
    if not access_filter.functions:
        return access_filter.subject, access_filter.everything, _NO_FUNCTION
    alternatives = (
        re.escape(grant[:-1]) if grant.endswith("*") else re.escape(grant) + r"\Z"
        for grant in access_filter.functions
    )
    return access_filter.subject, access_filter.everything, rf"\A({'|'.join(alternatives)})"


def is_accessible(m: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    """Inside the asker's scope: what is outside does not exist for it.

    Who has no grant is never matched with a function: on SQLite that is a call to Python, which
    would only be made, and take its time, where there is a foreign operation.
    """
    granted = sa.and_(
        m["functions"] != sa.literal_column(f"'{_NO_FUNCTION}'"),
        _o.function.regexp_match(m["functions"]),
    )
    return sa.or_(_o.owner == m["subject"], m["everything"], granted)


def unexpired() -> ColumnElement[bool]:
    """Return the condition that an operation has not expired.

    Past its time an operation is invisible if the sweeper only has to purge it. Any other stays
    visible until it has been ended, such as one that is being processed.
    """
    return sa.or_(
        _o.expire_time >= clock(), sa.not_(has_status(operations, TABLE[Transition.PURGE].sources))
    )


def has_status(table: sa.FromClause, statuses: Collection[Status]) -> ColumnElement[bool]:
    """Return the condition that a row, found by other columns, is in one of `statuses`.

    No index can serve it. A partial index of these statuses would offer itself to a planner that
    does not know how many rows are in it, and be read as a whole.
    """
    return _is_one_of(sa.func.coalesce(table.c.status, sa.literal_column("''")), statuses)


def indexed_status(table: sa.FromClause, statuses: Collection[Status]) -> ColumnElement[bool]:
    """Return the condition that a row is in one of `statuses`, for an index to serve."""
    return _is_one_of(table.c.status, statuses)


def _is_one_of(column: ColumnElement[str], statuses: Collection[Status]) -> ColumnElement[bool]:
    if not statuses:
        return sa.false()
    texts: list[ColumnElement[str]] = [
        sa.literal_column(f"'{status}'") for status in sorted(statuses)
    ]
    # The planner finds a partial index by the form of its condition: see `tables.status_condition`.
    return column == texts[0] if len(texts) == 1 else column.in_(texts)


def literal_access_filter(access_filter: AccessFilter) -> Mapping[str, ColumnElement[Any]]:
    """Return the inputs of `is_accessible` for a statement that is built for one asker."""
    values = zip(ACCESS_FILTER.items(), access_filter_values(access_filter), strict=True)
    return {name: sa.literal(value, type_) for (name, type_), value in values}
