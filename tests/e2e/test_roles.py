"""Two roles, as docs/operating.md describes them: an owner that migrates, and a service."""

import uuid

import psycopg
import pytest
import sqlalchemy as sa
from grpc import StatusCode

from milepost.config import load
from milepost.main.checks import check
from milepost.main.cleanup import clean_up
from milepost.main.database import DatabaseError
from milepost.main.migration import migrate
from tests.e2e.refusals import refused
from tests.e2e.service import Service
from tests.unit.documents import OPERATING, blocks
from tests.waiting import eventually

pytestmark = pytest.mark.timeout(180)  # a migration and a service

OWNER, SERVICE = "milepost_owner", "milepost_service"
SOON_S = 5.0


class Roles:
    """The two roles on a database of their own, under names that no other test has."""

    def __init__(self, server, database):
        self._server, self._database = server, database
        self._suffix = f"_{database[-8:]}"

    def run(self, statements):
        """Run SQL of the document as a superuser."""
        for role in (OWNER, SERVICE):
            statements = statements.replace(role, role + self._suffix)
        plain = sa.make_url(self._server.url(self._database)).set(drivername="postgresql")
        with psycopg.connect(plain.render_as_string(hide_password=False)) as connection:
            connection.execute(statements.encode())

    def url(self, role):
        """Return the URL of the database for a role."""
        url = sa.make_url(self._server.url(self._database)).set(username=role + self._suffix)
        return url.render_as_string(hide_password=False)


@pytest.fixture
def roles(postgres):
    """A database with the two roles, which are as the document says, and no tables."""
    name = f"milepost_roles_{uuid.uuid4().hex}"
    postgres.create_database(name)
    roles = Roles(postgres, name)
    roles.run(blocks(OPERATING, "sql")[0])
    yield roles
    for role in (SERVICE, OWNER):
        roles.run(f"DROP OWNED BY {role} CASCADE")
        roles.run(f"DROP ROLE {role}")
    postgres.drop_database(name)


def days(roles):
    """Return the number of partitions of events."""
    engine = sa.create_engine(roles.url(OWNER), poolclass=sa.NullPool)
    return sum(name[7:].isdigit() for name in sa.inspect(engine).get_table_names())


def test_least_privilege(roles, tmp_path):
    """The owner migrates and keeps the days; the service serves with rights on rows only.

    A right that is missing makes it not ready, with the statement that grants it.
    """
    owner, serving = (load(database_url=roles.url(role)) for role in (OWNER, SERVICE))
    with pytest.raises(DatabaseError, match="permission denied for schema public") as denied:
        migrate(roles.url(SERVICE))
    assert not denied.value.away
    migrate(roles.url(OWNER))
    assert check(serving, connect=True) == []
    clean_up(owner, dry_run=False)
    assert days(roles) == 4
    with Service(roles.url(SERVICE), tmp_path) as service:
        both = service.client("both", roles=("CALLER", "WORKER"), functions=("*",))
        done = both.create_in("COMPLETED")
        both.call("DeleteOperation", operation_id=done.id)
        operation = both.create()

        roles.run(f"REVOKE INSERT ON events FROM {SERVICE}")
        found = eventually(service.problem, within=SOON_S, what="not ready")
        role = str(sa.make_url(service.database_url).username)
        assert found == (
            f"the role {role} lacks privileges on events: GRANT SELECT, INSERT, UPDATE, DELETE"
            f" ON ALL TABLES IN SCHEMA public TO {role}"
        )
        with refused(StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE"):
            both.create()
        assert both.get(operation.id) == operation
        with pytest.raises(DatabaseError) as missing:
            check(serving, connect=False)
        assert str(missing.value) == f"database: {found}"
        roles.run(blocks(OPERATING, "sql")[1])
        eventually(service.is_ready, within=SOON_S, what="ready again")
        assert both.create_in("COMPLETED").revision == 3
        service.logged(event="event days not kept")
    roles.run(f"REVOKE USAGE ON SCHEMA public FROM {SERVICE}, PUBLIC")
    with pytest.raises(DatabaseError, match=f"the role {role} may not use the schema public"):
        check(serving, connect=False)
