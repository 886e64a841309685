"""Claims that arrive together share statements, and each gets what it would get alone."""

import asyncio
import contextlib
from collections import Counter
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.errors import StoreUnavailable
from milepost.storage.claims import Claims
from milepost.storage.dialects import pairs_json
from milepost.storage.session import Session
from milepost.storage.tables import operations
from tests import factories
from tests.contract.test_claims import claim

FUNCTIONS = tuple(f"function-{n:03}" for n in range(100))
ODD = ('a"b', "a\\b", "a'b", "%s", "$1", "ünï:cødé", "{a,b}", "NULL", "[1]")
"""Names with the characters that mean something in SQL, JSON or arrays."""


class CountedSession(Session):
    """A session that counts the statements that claim and those that only search."""

    claims = searches = 0
    fails_at: int | None = None

    def run(self, statement, rows):
        """Run a claim, or fail at the one with this number."""
        self.claims += 1
        if self.claims == self.fails_at:
            raise StoreUnavailable
        return super().run(statement, rows)

    def read(self, statement, rows):
        """Run a search."""
        self.searches += 1
        return super().read(statement, rows)


@pytest.fixture
def session(engine):
    """The session of the claims."""
    session = CountedSession(engine, pinned_plans=True)
    yield session
    session.reset()


@pytest.fixture
def claims(session):
    """The claims of a replica."""
    return Claims(session.database)


def insert(stored, *functions, owner="alice", count=1, **overrides):
    """Insert `count` pending operations of each function."""
    rows = [
        factories.row(function=function, owner=owner, **overrides)
        for function in functions
        for _ in range(count)
    ]
    stored.execute(sa.insert(operations), rows)


def test_claims_without_work_are_one_statement(session, claims):
    """Fifty workers of 100 functions without work cost one statement."""
    assert claims.claim(session, [claim(functions=FUNCTIONS)] * 50) == [[]] * 50
    assert (session.claims, session.searches) == (1, 0)


def test_claim_of_many_functions_is_one_statement(session, claims, stored):
    """A claim takes the work of 30 of its 100 functions in one statement."""
    insert(stored, *FUNCTIONS[::3][:30])
    (claimed,) = claims.claim(session, [claim(functions=FUNCTIONS, max_operations=30)])
    assert {operation.function for operation in claimed} == set(FUNCTIONS[::3][:30])
    assert session.claims == 1


def test_different_claims_without_work_are_one_search(session, claims, stored):
    """Workers whose functions differ cost one search, and a claim for those that have work."""
    insert(stored, FUNCTIONS[7])
    requests = [claim(functions=FUNCTIONS[n : n + 50]) for n in range(40)]
    claimed = claims.claim(session, requests)
    assert [len(answer) for answer in claimed] == [1] + [0] * 39
    assert session.searches == 1
    assert session.claims == 2  # the second one finds nothing


def test_each_claim_gets_its_own(session, claims, stored):
    """Each of several claims gets at most what it asked for, under its own lease and name."""
    insert(stored, factories.FUNCTION, count=8)
    requests = [
        claim(
            max_operations=n, actor=f"actor-{n}", worker=f"worker-{n}", lease=timedelta(minutes=n)
        )
        for n in (3, 1, 2, 4)
    ]
    answers = claims.claim(session, requests)
    assert [len(answer) for answer in answers] == [3, 1, 2, 2]
    claimed = [operation.id for answer in answers for operation in answer]
    assert len(set(claimed)) == len(claimed)
    for request, answer in zip(requests, answers, strict=True):
        for operation in answer:
            assert operation.worker == request.worker
            assert operation.lease_expire_time == operation.start_time + request.lease
            (event,) = stored.events(operation.id)
            assert (event["actor"], event["worker"]) == (request.actor, request.worker)
            assert event["revision"] == operation.revision


def test_each_claim_gets_only_its_functions(session, claims, stored):
    """Claims of different functions that arrive together get work of their own functions."""
    insert(stored, *FUNCTIONS[:6], count=2)
    requests = [claim(functions=FUNCTIONS[n : n + 2], max_operations=2) for n in range(5)]
    answers = claims.claim(session, requests)
    assert sum(map(len, answers)) == 10
    for request, answer in zip(requests, answers, strict=True):
        assert {operation.function for operation in answer} <= set(request.functions)


def test_each_answer_is_bounded(session, claims, stored):
    """The bytes of each answer are bounded; its first operation always fits, the rest is left."""
    insert(stored, factories.FUNCTION, count=40, metadata='{"a": "' + "x" * 10_000 + '"}')
    requests = [claim(max_operations=10, max_bytes=n) for n in (1, 25_000, 60_000)]
    answers = claims.claim(session, requests)
    assert [len(answer) for answer in answers] == [1, 2, 5]
    (rest,) = claims.claim(session, [claim(max_operations=100)])
    assert len(rest) == 32


def test_owners_take_turns_in_shared_claims(session, claims, stored):
    """Of claims that arrive together, each owner gets its turn before one is served again."""
    insert(stored, factories.FUNCTION, owner="busy", count=20)
    for owner in ("ann", "zoe"):
        insert(stored, factories.FUNCTION, owner=owner)
    owners = [answer[0].owner for answer in claims.claim(session, [claim()] * 4)]
    assert sorted(owners[:3]) == ["ann", "busy", "zoe"]
    assert owners[3] == "busy"


def test_owners_keep_their_turns_in_every_function(session, claims, stored):
    """The owner after the one served last comes next, and the first again after the last."""
    functions = FUNCTIONS[:2]
    for owner in ("ann", "busy", "zoe"):
        insert(stored, *functions, owner=owner, count=4)
    served = [
        (operation.function, operation.owner)
        for _ in range(12)
        for operation in claims.claim(session, [claim(functions=functions)])[0]
    ]
    assert set(Counter(served).values()) == {2}
    for function in functions:
        owners = [owner for found, owner in served if found == function]
        assert owners == owners[:3] * 2


def test_busy_function_does_not_starve_another(session, claims, stored):
    """A function with little work is served beside one with much."""
    insert(stored, FUNCTIONS[0], count=50)
    insert(stored, FUNCTIONS[1])
    found = [
        answer[0].function
        for _ in range(2)
        for answer in claims.claim(session, [claim(functions=FUNCTIONS[:2])])
    ]
    assert sorted(found) == sorted(FUNCTIONS[:2])


def test_priorities_hold_in_shared_claims(session, claims, stored):
    """Claims that arrive together take the highest priorities of an owner first."""
    for priority in (5, 9, 0, 7):
        insert(stored, factories.FUNCTION, priority=priority)
    answers = claims.claim(session, [claim()] * 3)
    assert [answer[0].priority for answer in answers] == [9, 7, 5]


def test_names_are_taken_literally(session, claims, stored):
    """Functions and owners may have any characters."""
    for name in ODD:
        insert(stored, name, owner=f"owner {name}", count=2)
    for _ in range(2):  # the second time with the last served owners
        (claimed,) = claims.claim(session, [claim(functions=ODD, max_operations=len(ODD))])
        assert {operation.function for operation in claimed} == set(ODD)
    assert pairs_json([('"', "\\")]) == '[["\\"","\\\\"]]'


def test_failure_keeps_what_was_claimed_before(session, claims, stored):
    """When a statement fails, the claims of earlier ones are answered, and the others refused."""
    insert(stored, *FUNCTIONS[:2])
    session.fails_at = 2
    requests = [claim(functions=(function,)) for function in FUNCTIONS[:2]]
    transaction = (
        session.shared_commit() if session.database.has_one_writer else contextlib.nullcontext()
    )
    with transaction:
        first, second = claims.claim(session, requests)
    assert [operation.function for operation in first] == [FUNCTIONS[0]]
    assert isinstance(second, StoreUnavailable)
    assert stored.operation(first[0].id)["status"] == "PROCESSING"


def test_failure_of_the_first_statement_changes_nothing(session, claims):
    """When nothing was claimed, the failure is raised, so that the batch may run again."""
    session.fails_at = 1
    with pytest.raises(StoreUnavailable):
        claims.claim(session, [claim()] * 2)


async def test_claims_of_many_workers_gather(stores, stored):
    """Many workers of 100 functions that arrive at once are all answered."""
    insert(stored, *FUNCTIONS)
    answers = await asyncio.gather(
        *(stores.work.claim(claim(functions=FUNCTIONS)) for _ in range(150))
    )
    assert sum(map(len, answers)) == 100
    assert max(map(len, answers)) == 1
