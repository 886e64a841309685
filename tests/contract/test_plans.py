"""The plans of the statements: an index serves each, whatever the size of the table."""

import itertools
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain import sweep
from milepost.domain.delivery import DeliverySelection, DeliveryStatus
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.selection import Position, Selection
from milepost.domain.transitions import Transition
from milepost.storage import (
    api_keys,
    history,
    inserts,
    pending_work,
    predicates,
    queries,
    quotas,
    statements,
    sweeps,
    workload,
)
from milepost.storage.deliveries import page_query
from milepost.storage.dialects import clock, pairs_json
from milepost.storage.effects import EFFECTS
from milepost.storage.engine import open_engine
from milepost.storage.operations import get_statement, status_snapshots_statement
from milepost.storage.pages import page_statement, page_values, shape_of
from milepost.storage.schema import upgrade
from milepost.storage.session import Session
from milepost.storage.tables import (
    operations,
)
from tests import factories
from tests.contract.many_rows import IDS, ROWS, fill
from tests.contract.plan import prepared, query
from tests.event_days import keep_event_days

ME = factories.access_filter("owner-3")
BUSY = factories.access_filter("busy")
ADMIN = factories.access_filter("admin", everything=True)
AFTER = Position(create_time=factories.LONG_AGO + timedelta(seconds=ROWS * 0.95), id=IDS[0])


@pytest.fixture(scope="module")
def engine(shared_url):
    """A database with many operations, for all tests of this module."""
    upgrade(shared_url)
    keep_event_days(shared_url)
    engine = open_engine(shared_url)
    fill(engine)
    return engine


@pytest.fixture(params=["pinned plans", "free plans"])
def session(engine, request):
    """A session with pinned plans, and one whose planner chooses."""
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
    """A read-only session, as for lists."""
    session = Session(engine, pinned_plans=True, read_only=True)
    yield session
    session.reset()


@pytest.mark.parametrize("count", [1, 32])
def test_get_by_id(session, count):
    """The primary key serves reads by id, one or many."""
    rows = [(i, *predicates.access_filter_values(ME), n) for n, i in enumerate(IDS[:count])]
    plan = prepared(session, get_statement(session.database), rows)
    assert plan.scans == []
    assert plan.uses("operations_pkey")


@pytest.mark.parametrize("count", [1, 32])
@pytest.mark.parametrize("transition", EFFECTS)
def test_moves_by_id(session, transition, count):
    """The primary key serves transitions, one or many."""
    changes = [factories.change(transition, i, access_filter=ME) for i in IDS[:count]]
    rows = [statements.values(change) for change in changes]
    for _made, statement in statements.of_transition(session.database, transition):
        plan = prepared(session, statement, rows)
        assert plan.scans == []
        assert plan.uses("operations_pkey")


@pytest.mark.parametrize("transition", EFFECTS)
def test_why_not(session, transition):
    """The primary keys serve the read that explains a refused transition."""
    change = factories.change(transition, IDS[5], access_filter=ME, request_id="r-1")
    plan = query(session, queries.refused_operation(change))
    assert plan.scans == []
    assert plan.uses("operations_pkey")
    assert plan.uses("events_pkey")


@pytest.mark.parametrize("request_id", [None, "r-1"])
def test_last_event(session, request_id):
    """The primary key of the events serves the read of the last event."""
    plan = query(session, queries.last_event(IDS[5], "owner-3", request_id))
    assert plan.scans == []
    assert plan.uses("events_pkey")


@pytest.mark.parametrize("count", [1, 32])
def test_revisions(free, count):
    """The primary key serves the poll of revisions, for one operation or many."""
    plan = prepared(free, history.revisions(free.database), [(i,) for i in IDS[:count]])
    assert plan.scans == []
    assert plan.uses("operations_pkey")


@pytest.mark.parametrize("count", [1, 32])
def test_status_snapshots(free, count):
    """The primary key serves the poll of operations on streams, for one operation or many."""
    statement = status_snapshots_statement(free.database)
    plan = prepared(free, statement, [(i,) for i in IDS[:count]])
    assert plan.scans == []
    assert plan.uses("operations_pkey")


def test_passages(free):
    """The primary key of the events serves the read of status changes."""
    plan = query(free, history.status_changes(IDS[5], 1, 9, 100))
    assert plan.scans == []
    assert plan.uses("events_pkey")


def test_list_of_events(free):
    """The primary key of the events serves the list of the events of an operation."""
    plan = query(free, history.select_events(IDS[5], 1, 50, 1_000_000))
    assert plan.scans == []
    assert plan.uses("events_pkey")


@pytest.mark.parametrize("count", [1, 32])
@pytest.mark.parametrize("transition", [Transition.START, Transition.RETRY])
def test_repeated_request(session, transition, count):
    """The primary key of the events serves the search for an earlier request with the same id."""
    changes = [factories.change(transition, i, request_id="r-1") for i in IDS[:count]]
    statement = statements.recorded(session.database, transition)
    plan = prepared(session, statement, [statements.values(change) for change in changes])
    assert plan.scans == []
    assert plan.uses("events_pkey")


def test_request_of_an_owner(session):
    """The index of owner and request_id serves the read of an earlier create."""
    plan = query(session, queries.of_request(factories.new_operation(request_id="r-1")))
    assert plan.scans == []
    assert plan.uses("operations_owner_request_id_idx")


@pytest.mark.parametrize("count", [1, 32])
def test_create(session, count):
    """Creates, one or many, scan no table."""
    new_operations = [
        factories.new_operation(owner="busy", request_id=f"r-{n}") for n in range(count)
    ]
    rows = [
        inserts.new_operation_values(new_operation_id(), new_operation)
        for new_operation in new_operations
    ]
    plan = prepared(session, inserts.insert(session.database), rows)
    assert plan.scans == []
    if session.database.dialect.name == "postgresql":
        assert plan.uses("operations_owner_request_id_idx")


def test_count_of_active_operations(session):
    """The index of owner and status serves the count of active operations."""
    plan = query(session, quotas.count_active("owner-3", 11))
    assert plan.scans == []
    assert plan.uses("operations_owner_status_create_time_id_idx")


SUBSETS = [
    subset
    for size in range(len(Status) + 1)
    for subset in itertools.combinations(sorted(Status), size)
]
"""Every filter of statuses."""


@pytest.mark.parametrize("function", [None, "function-3", "rare", "missing"])
@pytest.mark.parametrize(
    ("asker", "owner"),
    [(BUSY, None), (ME, None), (ADMIN, "busy"), (ADMIN, None)],
    ids=["busy owner", "owner", "owner, by an admin", "admin"],
)
def test_lists(free, asker, owner, function):
    """Indexes in the order of the list serve every combination of filters: no scan, no sort."""
    by_owner = "owner_" if owner or not asker.everything else ""
    by_function = "function_" if function else ""
    for statuses in SUBSETS:
        selection = Selection(owner=owner, function=function, statuses=statuses)
        for full, after in itertools.product((False, True), (None, AFTER)):
            statement = page_statement(free.database, shape_of(asker, selection, full=full))
            values = page_values(asker, selection, after, 50, 1_000_000)
            plan = prepared(free, statement, [values])
            assert plan.scans == []
            # The rows of one page may be sorted when their payloads are read.
            assert full or plan.sorts == [], (statuses, plan.steps)
            assert plan.indexes - {"operations_pkey"} == {
                f"operations_{by_owner}{by_function}status_create_time_id_idx",
                *(() if statuses else ("operations_unknown_status_idx",)),
            }


@pytest.mark.parametrize("after", [None, AFTER], ids=["first page", "later page"])
@pytest.mark.parametrize("statuses", [(), (DeliveryStatus.PENDING,), tuple(DeliveryStatus)[1:]])
def test_lists_of_deliveries(free, statuses, after):
    """An index in the order of the list serves every filter of deliveries: no scan, no sort."""
    selection = DeliverySelection(statuses=statuses)
    plan = query(free, page_query("busy", selection, after, 50))
    assert plan.scans == []
    assert plan.sorts == [], plan.steps
    assert plan.uses("deliveries_owner_status_create_time_id_idx")
    assert not plan.uses("deliveries_due_idx")
    of_one = DeliverySelection(statuses=statuses, operation_id=IDS[5])
    plan = query(free, page_query("busy", of_one, after, 50))
    assert plan.scans == []
    assert plan.uses("deliveries_operation_id_revision_idx")


def test_expiry(free):
    """The index of expire_time serves the search for expired operations."""
    late = sa.select(operations.c.id).where(operations.c.expire_time < clock())
    plan = query(free, late.order_by(operations.c.expire_time).limit(1_000))
    assert plan.scans == []
    assert plan.sorts == []
    assert plan.uses("operations_expire_time_idx")


def test_work_that_falls_due(pinned, free):
    """The index of waiting operations serves the search for work that falls due."""
    looked = prepared(free, pending_work.next_due_statement(free.database), [()])
    woken = prepared(pinned, pending_work.wake_statement(pinned.database), [(1_000,)])
    for plan in (looked, woken):
        assert plan.scans == []
        assert plan.sorts == []
        assert plan.uses("operations_next_attempt_time_idx")


@pytest.mark.parametrize(
    ("sweep", "index"),
    [
        (sweep.RELEASE, "operations_leased_idx"),
        (sweep.ABANDON, "operations_leased_idx"),
        (sweep.CANCEL_LOST, "operations_leased_idx"),
        (sweep.CANCEL, "operations_cancel_expire_time_idx"),
        (sweep.RETRY, "operations_run_expire_time_idx"),
        (sweep.RUN_OUT, "operations_run_expire_time_idx"),
        (sweep.TIME_OUT, "operations_queue_expire_time_idx"),
        (sweep.EXPIRE, "operations_processing_expire_time_idx"),
        (sweep.PURGE, "operations_expire_time_idx"),
    ],
)
def test_sweeps(session, sweep, index):
    """An index serves the search of a sweep, and the primary key its change."""
    statement = sweeps.sweep_statement(session.database, sweep)
    plan = prepared(session, statement, [("m", None, None, "[]", 1.0, 9)])
    assert plan.scans == []
    # Both are small: SQLite may choose either.
    others = {"operations_leased_idx": "operations_processing_expire_time_idx"}
    assert plan.uses(index) or plan.uses(others.get(index, index)), plan.steps
    assert plan.uses("operations_pkey")
    if index == "operations_expire_time_idx":
        # By operation, not by status: a plan for few deliveries must serve many.
        if session.database.dialect.name == "postgresql":  # one statement
            assert plan.uses("deliveries_operation_id_revision_idx")
        assert not plan.uses("deliveries_owner_status_create_time_id_idx")
        assert not plan.uses("deliveries_due_idx")


def test_events_to_purge(session):
    """The index of purge events serves the search for old ones, the primary key the removal."""
    rows = [(timedelta(days=7), 9)]
    plan = prepared(session, sweeps.purge_events_statement(session.database), rows)
    assert plan.scans == []
    assert plan.uses("events_purge_time_idx"), plan.steps
    assert plan.uses("events_pkey")


def test_keys_by_id(pinned):
    """The primary key serves the look-ups of API keys, their confirmation, and their last use."""
    ids = [f"{n:016x}" for n in range(100)]
    plans = [
        prepared(pinned, api_keys.find_statement(pinned.database), [(i,) for i in ids[:count]])
        for count in (1, 100)
    ]
    plans += [
        prepared(pinned, statement(pinned.database), [(pairs_json((i, "") for i in ids),)])
        for statement in (api_keys.good_statement, api_keys.use_statement)
    ]
    for plan in plans:
        assert plan.scans == []
        assert plan.uses("api_keys_pkey"), plan.steps


def test_workload(free):
    """Indexes serve the workload: no step reads a whole table, and none sorts."""
    plan = query(free, workload.load_query(100, 1_000))
    assert plan.scans == []
    assert plan.sorts == []
    assert plan.indexes == {
        "operations_pending_idx",
        "operations_function_status_create_time_id_idx",
    }
    assert plan.uses("events_pkey")
    plan = query(free, workload.overdue_query())
    assert (plan.scans, plan.sorts) == ([], [])
    assert plan.uses("deliveries_due_idx"), plan.steps


def test_progress_changes_no_indexed_column():
    """No index has a column that progress changes, so rows are updated in place."""
    renewed = {"revision", "lease_expire_time", "progress", "progress_time", "progress_message"}
    indexed = {column.name for index in operations.indexes for column in index.columns}
    conditions = [str(index.dialect_options["postgresql"]["where"]) for index in operations.indexes]
    assert not indexed & renewed
    assert not any(name in condition for name in renewed for condition in conditions)


def test_a_scan_would_be_seen(free):
    """The plan of a statement without an index has a scan."""
    plan = query(free, sa.select(operations.c.id).where(operations.c.worker == "w-1"))
    assert len(plan.scans) == 1
