"""Privileges that the role of the service needs on PostgreSQL: those on rows, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import sqlalchemy as sa

from milepost.storage.event_partitions import events_default
from milepost.storage.tables import metadata

if TYPE_CHECKING:
    from milepost.storage.session import Session

ON_ROWS: Final = "SELECT, INSERT, UPDATE, DELETE"
_REVISIONS: Final = "alembic_version"
_TABLES: Final = (*metadata.tables, events_default.name)
# Tables that do not exist yet have no answer: migrations are another requirement.
_MISSING: Final = sa.text(
    """
    SELECT current_user AS role,
        array_agg(DISTINCT name ORDER BY name) FILTER (WHERE is_denied) AS tables,
        array_agg(DISTINCT hidden) FILTER (WHERE hidden IS NOT NULL) AS schemas,
        current_schema() AS schema
    FROM (
        SELECT name,
            NOT has_table_privilege(to_regclass(name), privilege) AS is_denied,
            NULL::text AS hidden
        FROM unnest(CAST(:tables AS text[])) AS name,
            unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS privilege
        UNION ALL
        SELECT CAST(:revisions AS text),
            NOT has_table_privilege(to_regclass(:revisions), 'SELECT'), NULL
        UNION ALL
        SELECT NULL, NULL, nspname
        FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
        WHERE to_regclass(:revisions) IS NULL AND relname = :revisions
            AND NOT has_schema_privilege(relnamespace, 'USAGE')
            AND nspname = ANY (string_to_array(translate(replace(
                current_setting('search_path'), '$user', current_user), '" ', ''), ','))
    ) AS needed
    """
)


def missing_privilege(session: Session) -> str | None:
    """Return which privileges the role lacks, and the statement that grants them, or None."""
    (found,) = session.fetch(_MISSING, {"tables": [*_TABLES], "revisions": _REVISIONS})
    if found.schemas:
        schemas = ", ".join(found.schemas)
        return (
            f"the role {found.role} may not use the schema {schemas}: GRANT USAGE ON SCHEMA"
            f" {schemas} TO {found.role}"
        )
    if found.tables:
        return (
            f"the role {found.role} lacks privileges on {', '.join(found.tables)}: GRANT"
            f" {ON_ROWS} ON ALL TABLES IN SCHEMA {found.schema} TO {found.role}"
        )
    return None
