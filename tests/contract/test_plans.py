"""The plans of the statements: an index serves each, whatever the size of the table."""

import random
import uuid
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status, new_operation_id
from milepost.domain.selection import Position, Selection
from milepost.domain.transitions import Transition
from milepost.storage import claims, history, predicates, queries, quotas, statements, sweeps
from milepost.storage.database import Runnable
from milepost.storage.dialects import clock
from milepost.storage.engine import open_engine
from milepost.storage.schema import upgrade
from milepost.storage.session import Session
from milepost.storage.tables import deliveries, delivery_attempts, events, operations
from tests import factories

ROWS = 6_000
DATABASE = f"milepost_plans_{uuid.uuid4().hex}"
IDS = [new_operation_id() for _ in range(ROWS)]
ME = factories.access_filter("owner-3")
BUSY = factories.access_filter("busy")
ADMIN = factories.access_filter("admin", everything=True)
AFTER = Position(create_time=factories.LONG_AGO + timedelta(seconds=ROWS * 0.95), id=IDS[0])


@pytest.fixture(scope="module")
def sqlite_plans(tmp_path_factory):
    """The URL of an empty SQLite file."""
    return f"sqlite:///{tmp_path_factory.mktemp('plans') / 'milepost.db'}"


@pytest.fixture(scope="module")
def postgresql_plans(postgres):
    """The URL of an empty PostgreSQL database."""
    postgres.create_database(DATABASE)
    yield postgres.url(DATABASE)
    postgres.drop_database(DATABASE)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def engine(request):
    """A database with many operations, for all tests of this module."""
    url = request.getfixturevalue(f"{request.param}_plans")
    upgrade(url)
    engine = open_engine(url)
    fill(engine)
    return engine


def fill(engine):
    """Owners busy and idle, functions, every status, and statistics for the planner."""
    dice = random.Random(1)  # noqa: S311 - any spread will do
    owners = [dice.choice(["busy", f"owner-{dice.randrange(15)}"]) for _ in IDS]
    rows = [
        factories.row(
            list(Status)[n % 5],
            id=operation_id,
            owner=owners[n],
            function=f"function-{dice.randrange(7)}",
            create_time=factories.LONG_AGO + timedelta(seconds=n),
            start_time=None if n % 5 in {0, 4} else factories.LONG_AGO + timedelta(seconds=n),
            complete_time=factories.FAR_AWAY if n % 5 in {2, 3} else None,
            cancel_time=factories.FAR_AWAY if n % 5 == 4 else None,
            expire_time=factories.FAR_AWAY - timedelta(seconds=n),
        )
        for n, operation_id in enumerate(IDS)
    ]
    happened = [
        {
            "operation_id": operation_id,
            "revision": 1,
            "type": "operation.created",
            "transition": "create",
            "owner": owners[n],
            "actor": "somebody",
            "time": factories.LONG_AGO,
        }
        for n, operation_id in enumerate(IDS)
    ]
    webhooks = [
        {
            "id": f"msg_{n:032x}",
            "operation_id": operation_id,
            "revision": 1,
            "type": "operation.completed",
            "owner": owners[n],
            "callback_url": "https://example.com/",
            "create_time": factories.LONG_AGO,
            "status": "DELIVERED",
            "settle_time": factories.LONG_AGO,
        }
        for n, operation_id in enumerate(IDS)
    ]
    attempts = [
        {
            "delivery_id": webhook["id"],
            "number": 1,
            "start_time": factories.LONG_AGO,
            "duration": timedelta(seconds=1),
            "status_code": 200,
        }
        for webhook in webhooks
    ]
    with engine.begin() as connection:
        connection.execute(sa.insert(operations), rows)
        connection.execute(sa.insert(events), happened)
        connection.execute(sa.insert(deliveries), webhooks)
        connection.execute(sa.insert(delivery_attempts), attempts)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("ANALYZE"))


@pytest.fixture(params=["pinned plans", "free plans"])
def session(engine, request):
    """A session of the store: one for statements by id, and one for everything else."""
    session = Session(engine, pinned_plans=request.param == "pinned plans")
    yield session
    session.reset()


@pytest.fixture
def pinned(engine):
    """A session whose plans are pinned, as for claims and sweeps."""
    session = Session(engine, pinned_plans=True)
    yield session
    session.reset()


@pytest.fixture
def free(engine):
    """A session whose planner chooses freely, as for lists."""
    session = Session(engine, read_only=True)
    yield session
    session.reset()


class Plan:
    """A cursor that explains statements instead of running them."""

    def __init__(self, session):
        self._cursor = session.cursor
        self._sqlite = session.database.dialect.name == "sqlite"
        self.steps = []

    def execute(self, sql, parameters=()):
        """Note the steps of the statement."""
        explain = "EXPLAIN QUERY PLAN " if self._sqlite else "EXPLAIN (FORMAT JSON) "
        self._cursor.execute(explain + sql, parameters)
        found = self._cursor.fetchall()
        self.steps += [row[3] for row in found] if self._sqlite else _steps(found[0][0][0]["Plan"])

    def executemany(self, sql, parameters):
        """Note the steps of the statement, each time."""
        for each in parameters:
            self.execute(sql, each)

    def fetchall(self):
        """Nothing was run."""
        return []

    @property
    def scans(self):
        """The steps that read a whole table, other than in the order of an index."""
        whole = ("SCAN operations", "SCAN events", "Seq Scan")
        return [s for s in self.steps if s.startswith(whole) and "USING INDEX" not in s]

    @property
    def sorts(self):
        """The steps that put rows in order, where an index would have had them in order."""
        return [step for step in self.steps if "TEMP B-TREE" in step or "Sort" in step]

    def uses(self, index):
        """Whether the index serves the statement."""
        # SQLite has its own name for the index of a primary key.
        names = {index, f"sqlite_autoindex_{index.removesuffix('_pkey')}_1"}
        return any(name in step for step in self.steps for name in names)


def _steps(node):
    yield " ".join(str(node.get(key, "")) for key in ("Node Type", "Index Name", "Relation Name"))
    for child in node.get("Plans", ()):
        yield from _steps(child)


def prepared(session, statement: Runnable, rows):
    """The plan of a prepared statement for rows of input."""
    plan = Plan(session)
    statement.run(plan, rows)
    return plan


def query(session, statement):
    """The plan of a statement that is built for each call."""
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


@pytest.mark.parametrize("asked", [1, 32])
def test_get_by_id(session, asked):
    """Reads by id, one or many, go by the primary key."""
    rows = [(i, *predicates.access_filter_values(ME), n) for n, i in enumerate(IDS[:asked])]
    plan = prepared(session, queries.get(session.database), rows)
    assert plan.scans == []
    assert plan.uses("operations_pkey")


@pytest.mark.parametrize("asked", [1, 32])
@pytest.mark.parametrize("transition", statements.EFFECTS)
def test_moves_by_id(session, transition, asked):
    """Moves, one or many, go by the primary key."""
    changes = [factories.change(transition, i, access_filter=ME) for i in IDS[:asked]]
    rows = [(*statements.condition_values(c), *statements.effect_values(c)) for c in changes]
    for statement in statements.of_transition(session.database, transition):
        plan = prepared(session, statement, rows)
        assert plan.scans == []
        assert plan.uses("operations_pkey")


@pytest.mark.parametrize("transition", statements.EFFECTS)
def test_why_not(session, transition):
    """The read that explains a refusal goes by the primary keys."""
    change = factories.change(transition, IDS[5], access_filter=ME, request_id="r-1")
    plan = query(session, queries.refused_operation(change))
    assert plan.scans == []
    assert plan.uses("operations_pkey")
    assert plan.uses("events_pkey")


@pytest.mark.parametrize("request_id", [None, "r-1"])
def test_last_event(session, request_id):
    """The read of what became of an operation goes by the primary key of the events."""
    plan = query(session, queries.last_event(IDS[5], "owner-3", request_id))
    assert plan.scans == []
    assert plan.uses("events_pkey")


@pytest.mark.parametrize("asked", [1, 32])
def test_revisions(free, asked):
    """The poll of those who wait goes by the primary key, for one operation or many."""
    plan = prepared(free, history.revisions(free.database), [(i,) for i in IDS[:asked]])
    assert plan.scans == []
    assert plan.uses("operations_pkey")


def test_passages(free):
    """The read of what a watcher has missed goes by the primary key of the events."""
    plan = query(free, history.status_changes(IDS[5], 1, 9, 100))
    assert plan.scans == []
    assert plan.uses("events_pkey")


def test_request_of_an_owner(session):
    """The read of an earlier create goes by owner and request_id."""
    plan = query(session, queries.of_request(factories.new_operation(request_id="r-1")))
    assert plan.scans == []
    assert plan.uses("operations_owner_request_id_idx")


@pytest.mark.parametrize("asked", [1, 32])
def test_create(session, asked):
    """Creates, one or many, read no table, whatever their owners have."""
    new_operations = [
        factories.new_operation(owner="busy", request_id=f"r-{n}") for n in range(asked)
    ]
    rows = [
        statements.new_operation_values(new_operation_id(), new_operation)
        for new_operation in new_operations
    ]
    plan = prepared(session, statements.insert(session.database), rows)
    assert plan.scans == []
    if session.database.dialect.name == "postgresql":
        assert plan.uses("operations_owner_request_id_idx")


def test_count_of_active_operations(session):
    """What an owner has active is counted by the index of owner and status."""
    plan = query(session, quotas.count_active("owner-3", 11))
    assert plan.scans == []
    assert plan.uses("operations_owner_status_create_time_id_idx")


@pytest.mark.parametrize("after", [None, AFTER], ids=["first page", "later page"])
@pytest.mark.parametrize(
    ("asker", "selection", "index"),
    [
        (ME, Selection(), "operations_owner_create_time_id_idx"),
        (
            BUSY,
            Selection(statuses=(Status.PENDING,)),
            "operations_owner_status_create_time_id_idx",
        ),
        (ADMIN, Selection(owner="owner-3"), "operations_owner_create_time_id_idx"),
        (
            ADMIN,
            Selection(function="function-3", statuses=(Status.PENDING,)),
            "operations_function_status_create_time_id_idx",
        ),
        (ADMIN, Selection(), "operations_create_time_id_idx"),
    ],
    ids=["owner", "owner and status", "owner, by an admin", "function and status", "all"],
)
def test_lists(free, asker, selection, index, after):
    """Each page of a list goes by an index that has its order: no scan, and no sort."""
    plan = query(free, queries.select_page(asker, selection, after, 50, full=True))
    assert plan.scans == []
    assert plan.sorts == [], plan.steps
    assert plan.uses(index)


def test_expiry(free):
    """What is past its time is found by the index of expire_time."""
    late = sa.select(operations.c.id).where(operations.c.expire_time < clock())
    plan = query(free, late.order_by(operations.c.expire_time).limit(1_000))
    assert plan.scans == []
    assert plan.sorts == []
    assert plan.uses("operations_expire_time_idx")


@pytest.mark.parametrize("most", [1, 100])
def test_claims(pinned, most):
    """A claim leaps through the index of pending work, and never reads the others."""
    asked = ("wally", None, None, "function-3", "", min(most, 16), most + 8, most)
    rows = [(*asked, "wally", timedelta(seconds=30))]
    plan = prepared(pinned, claims.claim_statement(pinned.database), rows)
    assert plan.scans == []
    assert plan.uses("operations_pending_idx")
    assert plan.uses("operations_pkey")


def test_look_for_work(free):
    """Whether there is pending work of some functions is one leap for each of them."""
    plan = query(free, claims.pending([f"function-{n}" for n in range(20)]))
    assert plan.scans == []
    assert plan.uses("operations_pending_idx")


@pytest.mark.parametrize(
    ("transition", "index"),
    [
        (Transition.RELEASE, "operations_leased_idx"),
        (Transition.ABANDON, "operations_leased_idx"),
        (Transition.EXPIRE, "operations_processing_expire_time_idx"),
        (Transition.PURGE, "operations_expire_time_idx"),
    ],
)
def test_sweeps(session, transition, index):
    """A sweep reads what may be due by an index, and moves it by the primary key."""
    plan = prepared(
        session, sweeps.sweep_statement(session.database, transition), [("m", None, None, "[]", 9)]
    )
    assert plan.scans == []
    # Either is small: SQLite does not know which of them is smaller.
    others = {"operations_leased_idx": "operations_processing_expire_time_idx"}
    assert plan.uses(index) or plan.uses(others.get(index, index)), plan.steps
    assert plan.uses("operations_pkey")


def test_events_to_purge(session):
    """Old events are found by the events of removals, and removed by their primary key."""
    rows = [(timedelta(days=7), 9)]
    plan = prepared(session, sweeps.purge_events_statement(session.database), rows)
    assert plan.scans == []
    assert plan.uses("events_purge_time_idx"), plan.steps
    assert plan.uses("events_pkey")


def test_progress_changes_no_indexed_column():
    """What a report of progress changes is in no index: it is updated in place."""
    renewed = {"revision", "lease_expire_time", "progress", "progress_time", "progress_message"}
    indexed = {column.name for index in operations.indexes for column in index.columns}
    conditions = [str(index.dialect_options["postgresql"]["where"]) for index in operations.indexes]
    assert not indexed & renewed
    assert not any(name in condition for name in renewed for condition in conditions)


def test_a_scan_would_be_seen(free):
    """A statement that no index serves shows as one that reads the whole table."""
    plan = query(free, sa.select(operations.c.id).where(operations.c.worker == "w-1"))
    assert len(plan.scans) == 1
