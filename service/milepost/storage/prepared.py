"""Prepared statements: compiled once, run for one row of input or for many.

The functions that make them are cached: a process compiles each statement once for a database,
however many stores it has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import sqlalchemy as sa

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy.sql import ClauseElement, ColumnElement, Executable
    from sqlalchemy.types import TypeEngine

    from milepost.storage.database import Cursor, Database


class Prepared:
    """A statement that is compiled once and runs for many rows of input.

    On a database with arrays, one statement takes many rows; a single row uses the plain
    statement, which costs less. On other databases the plain statement runs once for each row.
    """

    def __init__(
        self,
        database: Database,
        inputs: Mapping[str, TypeEngine[Any]],
        build: Callable[[Mapping[str, ColumnElement[Any]]], Executable],
    ) -> None:
        """Compile the statement that `build` returns for the named `inputs`."""
        self._database = database
        self._plain = _Compiled(database, inputs, build(_scalars(inputs)))
        arrays = database.arrays(inputs)
        self._batched = _Compiled(database, inputs, build(arrays)) if arrays else None

    def run(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        """Run for `rows`, each with a value for every input; return the result rows."""
        if self._batched is not None and len(rows) > 1:
            columns = zip(*rows, strict=True)
            return self._batched.run(cursor, [self._database.array(column) for column in columns])
        return self._plain.run_singly(cursor, rows)


class _Compiled:
    """The text of a statement, and the order and conversion of its parameters."""

    def __init__(
        self, database: Database, inputs: Mapping[str, TypeEngine[Any]], statement: Executable
    ) -> None:
        compiled: Any = cast("ClauseElement", statement).compile(
            dialect=database.statement_dialect, compile_kwargs={"render_postcompile": True}
        )
        self._sql = str(compiled)
        self._returns = statement.is_select or bool(compiled.effective_returning)
        names = tuple(inputs)
        fixed = {
            name: convert(value)
            if (convert := database.to_driver(compiled.binds[name].type))
            else value
            for name, value in compiled.params.items()
            if name not in inputs
        }
        self._fixed = tuple(fixed.values())
        # Placeholders have no names: `_order` gives the input of each placeholder.
        names += tuple(fixed)
        self._order = [names.index(name) for name in compiled.positiontup]
        self._converters = [
            (n, convert)
            for n, type_ in enumerate(inputs.values())
            if (convert := database.to_driver(type_)) is not None
        ]

    def run(self, cursor: Cursor, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        cursor.execute(self._sql, self._parameters(values))
        return cursor.fetchall() if self._returns else []

    def run_singly(self, cursor: Cursor, rows: Sequence[Sequence[Any]]) -> list[tuple[Any, ...]]:
        if not self._returns:
            cursor.executemany(self._sql, [self._parameters(row) for row in rows])
            return []
        return [result for row in rows for result in self.run(cursor, row)]

    def _parameters(self, values: Sequence[Any]) -> list[Any]:
        parameters = [*values, *self._fixed]
        for n, convert in self._converters:
            parameters[n] = convert(parameters[n])
        return [parameters[n] for n in self._order]


def _scalars(inputs: Mapping[str, TypeEngine[Any]]) -> Mapping[str, ColumnElement[Any]]:
    # Each is cast: PostgreSQL cannot tell the type of a parameter that is NULL.
    return {name: sa.cast(sa.bindparam(name, type_=type_), type_) for name, type_ in inputs.items()}
