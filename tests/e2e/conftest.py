"""Services for the end-to-end tests: one for each database, shared by the whole session."""

import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from milepost.webhooks.master_keys import new_key
from milepost_client import Milepost
from tests import canaries
from tests.contract.stored import Stored
from tests.e2e.client import Client
from tests.e2e.service import MEASURED_EVERY_S, Service
from tests.postgres import PostgresServer


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service on its embedded store."""
    folder = tmp_path_factory.mktemp("embedded")
    with Service(f"sqlite:///{folder / 'milepost.db'}", folder) as service:
        yield service


@pytest.fixture(scope="package")
def postgres_service(
    tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer, postgres_template: str
) -> Iterator[Service]:
    """A service on PostgreSQL."""
    name = f"milepost_e2e_{uuid.uuid4().hex}"
    postgres.create_database(name, template=postgres_template)
    url = sa.make_url(postgres.url(name))
    if url.password is None:  # the server trusts every client and ignores it
        url = url.set(password=canaries.fresh())
    where = url.render_as_string(hide_password=False)
    with Service(where, tmp_path_factory.mktemp("server"), webhook_keys=new_key()) as service:
        yield service
    postgres.drop_database(name)


@pytest.fixture(scope="package", params=["sqlite", "postgresql"])
def any_service(request: pytest.FixtureRequest) -> Service:
    """A service on each database, without exclusions."""
    fixtures = {"sqlite": "service", "postgresql": "postgres_service"}
    service: Service = request.getfixturevalue(fixtures[request.param])
    return service


@pytest.fixture
def unswept(database_url: str, tmp_path: Path) -> Iterator[Service]:
    """A service without a sweeper, on each database; it updates its metrics often."""
    with Service(
        database_url,
        tmp_path,
        measure_seconds=MEASURED_EVERY_S,
        lease_sweep_seconds="3600",
        cleanup_seconds="3600",
    ) as service:
        yield service


@pytest.fixture
def alice(any_service: Service) -> Client:
    """A caller with a new subject."""
    return any_service.client("alice")


@pytest.fixture(scope="package")
def worker(any_service: Service) -> Client:
    """A worker for all functions."""
    return any_service.worker()


@pytest.fixture
def admin(any_service: Service) -> Client:
    """An admin, which has access to the operations of all owners."""
    return any_service.client("root", roles=("ADMIN",))


@pytest.fixture
def stored(any_service: Service) -> Stored:
    """The content of the service's database."""
    return Stored(any_service.engine)


@pytest.fixture
def function() -> str:
    """A function that no other test works on."""
    return f"test.{uuid.uuid4().hex}"


@pytest.fixture
async def caller(any_service: Service) -> AsyncIterator[Milepost]:
    """A client of a new caller."""
    key = any_service.api_key(f"alice-{uuid.uuid4().hex}")
    async with Milepost(any_service.address, api_key=key) as milepost:
        yield milepost
