"""A description of the schema of a database, to compare two schemas."""

import re

import sqlalchemy as sa
from sqlalchemy.engine import Engine

_POSTGRESQL = {
    "relations": """
        SELECT c.relname, c.relkind, array_to_string(c.reloptions, ',')
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace""",
    "columns": """
        SELECT c.relname, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod),
            a.attnotnull, pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND a.attnum > 0
            AND NOT a.attisdropped""",
    "constraints": """
        SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
        FROM pg_constraint WHERE connamespace = 'public'::regnamespace""",
    "indexes": "SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
    "functions": "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace",
    "triggers": "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal",
}
_SQLITE = {"everything": "SELECT type, name, tbl_name, sql FROM sqlite_master"}


def describe(engine: Engine) -> dict[str, list[str]]:
    """Return every object of the schema, except the table of alembic."""
    queries = _SQLITE if engine.dialect.name == "sqlite" else _POSTGRESQL
    with engine.connect() as connection:
        return {
            kind: sorted(
                line
                for row in connection.execute(sa.text(query))
                if "alembic_version" not in (line := _line(row))
            )
            for kind, query in queries.items()
        }


def _line(row: sa.Row[tuple[object, ...]]) -> str:
    """Return the row as text, with the clauses of a CREATE TABLE sorted.

    SQLite appends a later column after the last constraint.
    """
    text = re.sub(r"\s+", " ", " | ".join(str(value) for value in row))
    head, bracket, body = text.partition("(")
    clauses = sorted(clause.strip() for clause in _clauses(body.strip().removesuffix(")")))
    return head + bracket + "; ".join(clauses)


def _clauses(body: str) -> list[str]:
    """Return the parts between the commas outside of brackets."""
    clauses, depth = [""], 0
    for character in body:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if character == "," and not depth:
            clauses.append("")
        else:
            clauses[-1] += character
    return clauses
