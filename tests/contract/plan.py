"""The plan of a statement, as the database explains it."""

import re

from milepost.storage.database import Runnable


class Plan:
    """A cursor that explains statements instead of running them."""

    def __init__(self, session):
        self._cursor = session.cursor
        self._sqlite = session.database.dialect.name == "sqlite"
        self.steps = []

    def execute(self, sql, parameters=()):
        """Record the steps of the statement."""
        explain = "EXPLAIN QUERY PLAN " if self._sqlite else "EXPLAIN (FORMAT JSON) "
        self._cursor.execute(explain + sql, parameters)
        found = self._cursor.fetchall()
        self.steps += [row[3] for row in found] if self._sqlite else _steps(found[0][0][0]["Plan"])

    def executemany(self, sql, parameters):
        """Record the steps of the statement for each set of parameters."""
        for each in parameters:
            self.execute(sql, each)

    def fetchall(self):
        """Return no rows."""
        return []

    @property
    def scans(self):
        """The steps that read a whole table, except in the order of an index."""
        tables = ("operations", "events", "deliveries", "api_keys")
        whole = ("Seq Scan", *(f"SCAN {table}" for table in tables))
        return [s for s in self.steps if s.startswith(whole) and "USING INDEX" not in s]

    @property
    def sorts(self):
        """The steps that sort rows."""
        return [step for step in self.steps if "TEMP B-TREE" in step or "Sort" in step]

    @property
    def indexes(self):
        """The indexes of the operations that serve the statement, without primary keys."""
        return {name for step in self.steps for name in re.findall(r"operations_\w+_idx", step)}

    def uses(self, index):
        """Return whether the index serves the statement."""
        # SQLite names the index of a primary key itself.
        names = {index, f"sqlite_autoindex_{index.removesuffix('_pkey')}_1"}
        return any(name in step for step in self.steps for name in names)


def _steps(node):
    """Yield the steps of PostgreSQL; the indexes of all partitions have the name of the table."""
    step = " ".join(str(node.get(key, "")) for key in ("Node Type", "Index Name", "Relation Name"))
    yield re.sub(r"\bevents_(default|\d+)_(\w+)", r"events_\2", step)
    for child in node.get("Plans", ()):
        yield from _steps(child)


def prepared(session, statement: Runnable, rows):
    """Return the plan of a prepared statement for rows of input."""
    plan = Plan(session)
    statement.run(plan, rows)
    return plan


def query(session, statement):
    """Return the plan of a statement that is built for each call."""
    compiled = statement.compile(
        dialect=session.database.statement_dialect, compile_kwargs={"render_postcompile": True}
    )
    values = {
        name: processor(value) if (processor := compiled._bind_processors.get(name)) else value
        for name, value in compiled.params.items()
    }
    plan = Plan(session)
    plan.execute(str(compiled), [values[name] for name in compiled.positiontup])
    return plan
