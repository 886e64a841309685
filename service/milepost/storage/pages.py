"""Pages of lists of operations, newest first, by keyset: their cost does not grow with depth.

Every combination of filters is served in the order of indexes. Each index ends with status,
create_time and id, so a list is the merge of one part for each status. A list of all statuses has
one more part, with an index of its own, for those that only a newer release knows. Payloads are
read only of the operations that fit into the page.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.pages import Page, page_of
from milepost.storage.answer_size import answer_bytes, bytes_of
from milepost.storage.dialects import Instant
from milepost.storage.predicates import has_unknown_status, ordered_status, unexpired
from milepost.storage.prepared import Prepared
from milepost.storage.rows import COLUMNS, SUMMARY_COLUMNS, RowReader
from milepost.storage.tables import operations

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    from milepost.domain.operation import AccessFilter, Operation
    from milepost.domain.selection import Position, Selection
    from milepost.storage.database import Database
    from milepost.storage.session import Session

    Inputs = Mapping[str, ColumnElement[Any]]

_o = operations.c

_INPUTS: Final[Mapping[str, TypeEngine[Any]]] = {
    "owner": sa.Text(),
    "function": sa.Text(),
    "create_time_from": Instant(),
    "create_time_to": Instant(),
    "after_time": Instant(),
    "after_id": sa.Text(),
    "max_items": sa.Integer(),
    "max_bytes": sa.Integer(),
}
_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The parts of a list on which its statement depends; the rest are inputs."""

    by_owner: bool
    by_function: bool
    statuses: frozenset[Status]
    """Empty for all, those of newer releases included."""
    full: bool


def shape_of(access_filter: AccessFilter, selection: Selection, *, full: bool) -> Shape:
    """Return the shape of a list."""
    return Shape(
        by_owner=not access_filter.everything or selection.owner is not None,
        by_function=selection.function is not None,
        statuses=frozenset(selection.statuses),
        full=full,
    )


def page_values(
    access_filter: AccessFilter,
    selection: Selection,
    after: Position | None,
    limit: int,
    max_bytes: int,
) -> tuple[Any, ...]:
    """Return the inputs of a list.

    One operation more than the page holds shows whether there is a next page.
    """
    return (
        selection.owner if access_filter.everything else access_filter.subject,
        selection.function,
        selection.create_time_from or _FIRST,
        selection.create_time_to or _LAST,
        after.create_time if after else _LAST,
        after.id if after else "",
        limit + 1,
        max_bytes,
    )


@functools.cache
def page_statement(database: Database, shape: Shape) -> Prepared:
    """Return the query for a page of this shape.

    The last column of a FULL page is the number of operations from which it was cut.
    """

    def build(m: Inputs) -> sa.Executable:
        if not shape.full:
            return newest_first(list(_parts(m, shape, SUMMARY_COLUMNS)), m["max_items"])
        measures = (_o.id, _o.create_time, answer_bytes(operations).label("answer_bytes"))
        return _full(m, newest_first(list(_parts(m, shape, measures)), m["max_items"]))

    return Prepared(database, _INPUTS, build)


def _full(m: Inputs, page: sa.Select[Any] | sa.CompoundSelect[Any]) -> sa.Select[Any]:
    """Return the query for the operations of `page` with their payloads, as many as fit."""
    found = page.cte("found")
    order = (found.c.create_time.desc(), found.c.id.desc())
    measured = sa.select(
        found.c.id,
        sa.func.row_number().over(order_by=order).label("position"),
        sa.func.sum(found.c.answer_bytes).over(order_by=order, rows=(None, 0)).label("total"),
        sa.func.count().over().label("found"),
    ).cte("measured")
    fits = sa.or_(measured.c.position == 1, measured.c.total <= m["max_bytes"])
    return (
        sa.select(*COLUMNS, measured.c.found)
        .join(measured, measured.c.id == _o.id)
        .where(measured.c.position < m["max_items"], fits)
        .order_by(measured.c.position)
    )


def newest_first(
    parts: Sequence[sa.Select[Any]], max_items: ColumnElement[int] | int
) -> sa.Select[Any] | sa.CompoundSelect[Any]:
    """Return the merge of `parts`, each of which has an index in the order of the list.

    Each part is ordered in a query of its own. Otherwise PostgreSQL would sort all of its rows.
    """
    order: tuple[ColumnElement[Any], ...] = (sa.desc("create_time"), sa.desc("id"))
    ordered = [part.order_by(*order) for part in parts]
    if len(ordered) == 1:
        return ordered[0].limit(max_items)
    merged = sa.union_all(*(sa.select(part.subquery()) for part in ordered))
    return merged.order_by(*order).limit(max_items)


def _parts(
    m: Inputs, shape: Shape, columns: Sequence[ColumnElement[Any]]
) -> Iterator[sa.Select[Any]]:
    query = sa.select(*columns).where(
        unexpired(),
        _o.create_time >= m["create_time_from"],
        _o.create_time < m["create_time_to"],
        sa.tuple_(_o.create_time, _o.id) < sa.tuple_(m["after_time"], m["after_id"]),
    )
    filters = [
        (column, m[column.name])
        for column, is_filtered in ((_o.owner, shape.by_owner), (_o.function, shape.by_function))
        if is_filtered
    ]
    equal = [column == value for column, value in filters]
    for status in sorted(shape.statuses or Status):
        yield query.where(ordered_status(_o.status, status), *equal)
    if not shape.statuses:
        # In this form no other index serves the part: that of unknown statuses is nearly empty.
        equal = [sa.func.coalesce(column, "") == value for column, value in filters]
        yield query.where(has_unknown_status(), *equal)


class Pages:
    """Reads pages. Each shape is compiled at its first use; there are at most 256."""

    def __init__(self, database: Database) -> None:
        """Read from `database`."""
        self._database = database
        self._rows = RowReader(database)

    def read(
        self,
        session: Session,
        access_filter: AccessFilter,
        selection: Selection,
        after: Position | None,
        limit: int,
        *,
        full: bool,
        max_bytes: int,
    ) -> Page[Operation]:
        """Return one page of those operations that are inside the access filter."""
        if not access_filter.everything and selection.owner not in (None, access_filter.subject):
            return Page(items=[], is_last=True)
        shape = shape_of(access_filter, selection, full=full)
        statement = page_statement(self._database, shape)
        values = page_values(access_filter, selection, after, limit, max_bytes)
        rows = session.read(statement, [values])
        if not full:
            items = [self._rows.operation(row) for row in rows]
            return page_of(items, limit, max_bytes=max_bytes, size=bytes_of)
        found = rows[0][-1] if rows else 0
        items = [self._rows.operation(row[:-1]) for row in rows]
        return Page(items=items, is_last=len(rows) == found)
