"""Lists: newest first, page by page, each operation once."""

import random
from datetime import timedelta

import pytest
import sqlalchemy as sa

from milepost.domain.operation import Status
from milepost.domain.selection import Position, Selection
from milepost.storage.tables import operations
from tests import factories

SECOND = timedelta(seconds=1)
ME = factories.access_filter()
ADMIN = factories.access_filter("admin", everything=True)


def at(seconds):
    """Return an instant in the past."""
    return factories.LONG_AGO + seconds * SECOND


def seed(stored, rows):
    """Insert the rows in random order."""
    rows = list(rows)
    random.Random(1).shuffle(rows)  # noqa: S311 - reproducible
    stored.execute(sa.insert(operations), rows)
    return rows


def ids(rows):
    """Return the ids of rows in the order of lists: newest first, then by id."""
    newest = sorted(rows, key=lambda row: (row["create_time"], row["id"]), reverse=True)
    return [row["id"] for row in newest]


async def listed(store, asker=ME, **conditions):
    """Return the ids of the operations that meet the conditions, in the order of the list."""
    page = await factories.listed(store, asker, Selection(**conditions), None, 100, full=False)
    return [operation.id for operation in page]


async def paged(store, limit, between=len):
    """Return all pages; call `between` after each."""
    pages, after = [], None
    while page := await factories.listed(store, ME, Selection(), after, limit, full=False):
        pages.append([operation.id for operation in page])
        assert len(page) <= limit
        after = Position(create_time=page[-1].create_time, id=page[-1].id)
        between(page)
    return pages


async def test_empty_list(store):
    """A list without operations is empty."""
    assert await listed(store) == []


async def test_newest_first(store, stored):
    """A list is ordered by create_time and id, newest first."""
    rows = seed(stored, (factories.row(create_time=at(n // 3)) for n in range(12)))
    assert await listed(store) == ids(rows)


@pytest.mark.parametrize("limit", [1, 4, 12, 50])
async def test_pages_have_no_overlap_and_no_gap(store, stored, limit):
    """Pages list each operation once, also if many have the same create_time."""
    rows = seed(stored, (factories.row(create_time=at(n // 5)) for n in range(12)))
    pages = await paged(store, limit)
    assert [each for page in pages for each in page] == ids(rows)
    assert [len(page) for page in pages[:-1]] == [limit] * (len(pages) - 1)


async def test_pages_while_rows_come_and_go(store, stored):
    """Inserts and deletes between pages neither repeat nor hide other operations."""
    staying = [factories.row(create_time=at(n)) for n in range(20)]
    going = [factories.row(create_time=at(n)) for n in range(20)]
    seed(stored, staying + going)
    fresh = iter(range(100, 200))

    def stir(page):
        # Insert one newer than all and one at the end of the page; delete some others.
        shown = page[-1].create_time
        for moment in (at(next(fresh)), shown):
            stored.execute(sa.insert(operations), [factories.row(create_time=moment)])
        gone = {row["id"] for row in going}
        for operation_id in [page[-1].id, going[-1]["id"], going[0]["id"]]:
            if operation_id in gone:
                stored.execute(sa.delete(operations).where(operations.c.id == operation_id))

    pages = await paged(store, 5, stir)
    seen = [each for page in pages for each in page]
    assert len(seen) == len(set(seen))
    kept = {row["id"] for row in staying}
    assert [each for each in seen if each in kept] == ids(staying)


async def test_filters(store, stored):
    """The filters of status and function match exactly, alone and together."""
    functions = ("video.transcode", "video.transcoder", "Video.transcode", "video.*")
    rows = seed(
        stored,
        (
            factories.row(status, function=function, create_time=at(n))
            for n, status in enumerate(Status)
            for function in functions
        ),
    )
    for function in (*functions, "video", None):
        for statuses in ((), (Status.FAILED,), (Status.PENDING, Status.COMPLETED), tuple(Status)):
            expected = [
                row
                for row in rows
                if function in (None, row["function"])
                and (not statuses or row["status"] in statuses)
            ]
            assert await listed(store, function=function, statuses=statuses) == ids(expected)


async def test_range_of_create_time(store, stored):
    """A range of create_time includes its start and excludes its end."""
    rows = seed(stored, (factories.row(create_time=at(n)) for n in range(6)))
    within = [row for row in rows if at(2) <= row["create_time"] < at(4)]
    assert await listed(store, create_time_from=at(2), create_time_to=at(4)) == ids(within)
    assert len(await listed(store, create_time_from=at(2))) == 4
    assert len(await listed(store, create_time_to=at(2))) == 2
    assert await listed(store, create_time_from=at(4), create_time_to=at(4)) == []


async def test_owner_filter_is_for_admins(store, stored):
    """An admin may filter by any owner; another caller gets only its own operations."""
    mine = seed(stored, [factories.row() for _ in range(2)])
    theirs = seed(stored, [factories.row(owner="bob") for _ in range(3)])
    assert await listed(store) == ids(mine)
    assert await listed(store, owner="bob") == []
    assert await listed(store, ADMIN, owner="bob") == ids(theirs)
    assert await listed(store, ADMIN) == ids(mine + theirs)


async def test_summary_leaves_payloads_out(store):
    """A summary is the operation without result, errors and metadata; a full list has all."""
    ends = [
        await factories.reach(store, status, metadata='{"a":1}')
        for status in (Status.COMPLETED, Status.FAILED)
    ]
    newest = sorted(ends, key=lambda each: (each.create_time, each.id), reverse=True)
    assert await factories.listed(store, ME, Selection(), None, 50, full=True) == newest
    for summary, full in zip(
        await factories.listed(store, ME, Selection(), None, 50, full=False), newest, strict=True
    ):
        assert (summary.result, summary.errors, summary.metadata) == (None, (), None)
        assert summary.id == full.id
        assert summary.callback_url == full.callback_url
        assert (summary.status, summary.revision) == (full.status, full.revision)


async def test_expired_operations_do_not_shorten_pages(store, stored):
    """Expired operations do not count in a page."""
    rows = seed(stored, (factories.row(create_time=at(n)) for n in range(6)))
    seed(
        stored,
        (
            factories.row(create_time=at(n), expire_time=factories.LONG_AGO + timedelta(days=1))
            for n in range(6)
        ),
    )
    page = await factories.listed(store, ME, Selection(), None, 6, full=False)
    assert [operation.id for operation in page] == ids(rows)
