"""The partitions of the events, as a replica makes them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from sqlalchemy.engine import Engine

from milepost.storage import event_days
from milepost.storage.engine import open_engine
from milepost.storage.session import Session


@contextmanager
def _session(engine: Engine) -> Iterator[Session]:
    session = Session(engine, pinned_plans=True)
    try:
        yield session
    finally:
        session.reset()


def keep_event_days(url: str) -> None:
    """Make the partitions of today and of the next days on PostgreSQL, and close the connection."""
    with _session(open_engine(url)) as session:
        while session.database.has_event_days and event_days.step(session, timedelta(days=7)):
            pass


def make_past_day(engine: Engine, ago: timedelta) -> None:
    """Make the partition of a past day on PostgreSQL, as if a replica had run on it."""
    with _session(engine) as session:
        if session.database.has_event_days:
            with session.transaction():
                event_days.make(session, "public", _today() - ago)


@contextmanager
def making_today(engine: Engine) -> Iterator[None]:
    """Make the partition of today on PostgreSQL, in a transaction that ends with the block."""
    with _session(engine) as session, session.transaction():
        event_days.make(session, "public", _today())
        yield


def _today() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
