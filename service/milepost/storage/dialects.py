"""SQL that differs in syntax between the databases: types of time, the clock, text functions."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class Instant(sa.types.TypeDecorator[datetime]):
    """An aware point in time: ``timestamptz`` on PostgreSQL, microseconds since 1970 on SQLite."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type of the database."""
        return dialect.type_descriptor(
            sa.BigInteger() if dialect.name == "sqlite" else sa.DateTime(timezone=True)
        )

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """Convert to the stored value."""
        if value is None or dialect.name != "sqlite":
            return value
        return (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        """Convert from the stored value."""
        if value is None or dialect.name != "sqlite":
            return cast("datetime | None", value)
        return _EPOCH + timedelta(microseconds=value)


class Span(sa.types.TypeDecorator[timedelta]):
    """A duration: ``interval`` on PostgreSQL, microseconds on SQLite."""

    impl = sa.BigInteger  # not Interval, which would convert a second time
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type of the database."""
        return dialect.type_descriptor(
            sa.BigInteger() if dialect.name == "sqlite" else postgresql.INTERVAL()
        )

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> Any:
        """Convert to the stored value."""
        if value is None or dialect.name != "sqlite":
            return value
        return value // _MICROSECOND

    def process_result_value(self, value: Any, dialect: Dialect) -> timedelta | None:
        """Convert from the stored value."""
        if value is None or dialect.name != "sqlite":
            return cast("timedelta | None", value)
        return timedelta(microseconds=value)


class clock(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL function it is
    """The time of the database, constant within one statement.

    It is the only clock that decides about expiry and leases.
    """

    type = Instant()
    inherit_cache = True


@compiles(clock, "postgresql")
def _clock_postgresql(_element: clock, _compiler: SQLCompiler, **_kw: object) -> str:
    return "statement_timestamp()"


@compiles(clock, "sqlite")
def _clock_sqlite(_element: clock, _compiler: SQLCompiler, **_kw: object) -> str:
    # 'now' is one value for a whole statement, to the millisecond; 2440587.5 is 1970 in days.
    return "(CAST((julianday('now') - 2440587.5) * 86400000.0 + 0.5 AS INTEGER) * 1000)"


class long_ago(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL constant it is
    """The start of 1970, as a constant: the default of a column cannot be `clock`."""

    type = Instant()
    inherit_cache = True


@compiles(long_ago, "postgresql")
def _long_ago_postgresql(_element: long_ago, _compiler: SQLCompiler, **_kw: object) -> str:
    return "'1970-01-01 00:00:00+00'"


@compiles(long_ago, "sqlite")
def _long_ago_sqlite(_element: long_ago, _compiler: SQLCompiler, **_kw: object) -> str:
    return "0"


class host_of(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """The host and port of a URL, in lower case."""

    type = sa.Text()
    inherit_cache = True


@compiles(host_of, "postgresql")
def _host_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    url = compiler.process(element.clauses, **kw)
    after = f"split_part({url}, '://', 2)"
    return f"lower(split_part(split_part({after}, '/', 1), '?', 1))"


@compiles(host_of, "sqlite")
def _host_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    url = compiler.process(element.clauses, **kw)
    after = f"substr({url}, instr({url}, '://') + 3)"
    end = f"min(instr({after} || '/', '/'), instr({after} || '?', '?'))"
    return f"lower(substr({after}, 1, {end} - 1))"


class json_items(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """The items of a JSON array of texts, as a subquery: both databases hash it for IN.

    PostgreSQL compares a list of parameters one by one.
    """

    inherit_cache = True


@compiles(json_items, "postgresql")
def _items_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.clauses, **kw)
    return f"(SELECT json_array_elements_text(CAST({array} AS json)))"


@compiles(json_items, "sqlite")
def _items_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.clauses, **kw)
    return f"(SELECT value FROM json_each({array}))"  # noqa: S608 - a bound parameter


class json_pairs(FunctionElement[Any]):  # noqa: N801 - reads as the SQL function it is
    """The rows of a JSON array of pairs of texts: number, a and b; for `table_valued`."""

    inherit_cache = True


@compiles(json_pairs, "postgresql")
def _pairs_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.clauses, **kw)
    return (
        "(SELECT CAST(ordinality AS INTEGER) AS number, value->>0 AS a, value->>1 AS b"  # noqa: S608 - a bound parameter
        f" FROM json_array_elements(CAST({array} AS json)) WITH ORDINALITY)"
    )


@compiles(json_pairs, "sqlite")
def _pairs_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    array = compiler.process(element.clauses, **kw)
    return (
        "(SELECT key AS number, json_extract(value, '$[0]') AS a,"  # noqa: S608 - a bound parameter
        f" json_extract(value, '$[1]') AS b FROM json_each({array}))"
    )


def pairs_json(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the array of `json_pairs`."""
    return json.dumps(list(pairs), ensure_ascii=False, separators=(",", ":"))


class random_delivery_id(FunctionElement[str]):  # noqa: N801 - reads as the SQL function it is
    """A new webhook-id: ``msg_`` and 128 random bits (122 on PostgreSQL), without dots."""

    type = sa.Text()
    inherit_cache = True


@compiles(random_delivery_id, "postgresql")
def _random_postgresql(_element: object, _compiler: SQLCompiler, **_kw: object) -> str:
    return "('msg_' || replace(gen_random_uuid()::text, '-', ''))"


@compiles(random_delivery_id, "sqlite")
def _random_sqlite(_element: object, _compiler: SQLCompiler, **_kw: object) -> str:
    return "('msg_' || lower(hex(randomblob(16))))"


class scaled(FunctionElement[timedelta]):  # noqa: N801 - reads as the SQL function it is
    """A duration times a number."""

    type = Span()
    inherit_cache = True


@compiles(scaled, "postgresql")
def _scaled_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    span, factor = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({span} * {factor})"


@compiles(scaled, "sqlite")
def _scaled_sqlite(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    span, factor = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"CAST({span} * {factor} AS INTEGER)"


class not_before(FunctionElement[bool]):  # noqa: N801 - reads as the SQL condition it is
    """The condition that an event may belong to an operation that was created at this time.

    It is true for every event of the operation, and keeps PostgreSQL from the partitions of earlier
    days. The clock of the database may have been set back in between, by at most an hour.
    """

    type = sa.Boolean()
    inherit_cache = True


@compiles(not_before, "postgresql")
def _not_before_postgresql(element: Any, compiler: SQLCompiler, **kw: Any) -> str:
    time, create_time = (compiler.process(clause, **kw) for clause in element.clauses)
    return f"({time} >= {create_time} - interval '1 hour')"


@compiles(not_before, "sqlite")
def _not_before_sqlite(_element: object, _compiler: SQLCompiler, **_kw: object) -> str:
    return "1"


class long_before(FunctionElement[datetime]):  # noqa: N801 - reads as the SQL constant it is
    """A time before every other one."""

    type = Instant()
    inherit_cache = True


@compiles(long_before, "postgresql")
def _long_before_postgresql(_element: object, _compiler: SQLCompiler, **_kw: object) -> str:
    return "timestamptz '-infinity'"


@compiles(long_before, "sqlite")
def _long_before_sqlite(_element: object, _compiler: SQLCompiler, **_kw: object) -> str:
    return "0"


def shorter(a: ColumnElement[timedelta], b: ColumnElement[timedelta]) -> ColumnElement[timedelta]:
    """Return the SQL for the shorter of two durations."""
    return sa.case((a < b, a), else_=b)


def later(
    instant: ColumnElement[datetime], span: ColumnElement[timedelta]
) -> ColumnElement[datetime]:
    """Return the SQL for `instant` plus `span`."""
    return sa.type_coerce(instant.op("+")(span), Instant())


def latest(a: ColumnElement[datetime], b: ColumnElement[datetime]) -> ColumnElement[datetime]:
    """Return the SQL for the later of two instants, or `b` if `a` is NULL."""
    return sa.case((a > b, a), else_=b)
