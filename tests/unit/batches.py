"""Work for a batcher that stores numbers in a small database."""

import asyncio
import threading

import sqlalchemy as sa

from milepost.storage.engine import open_engine

MAX_WAIT_S = 10
MANY = 1_000


class Insert:
    """A statement that stores numbers."""

    def run(self, cursor, rows):
        """Store each number."""
        for row in rows:
            cursor.execute("INSERT INTO numbers VALUES (?)", row)
        return []


INSERT = Insert()


class Work:
    """A run function that stores numbers in a table with unique rows, and that a test can hold."""

    def __init__(self):
        self.batches = []
        self.running = threading.Semaphore(0)
        self._permits = threading.Semaphore(MANY)

    def __call__(self, session, items):
        """Store the items, and return ten times each."""
        self.batches.append(list(items))
        self.running.release()
        assert self._permits.acquire(timeout=MAX_WAIT_S)
        session.run(INSERT, [(item,) for item in items])
        return [item * 10 for item in items]

    def hold(self):
        """Hold further batches until `release`."""
        self._permits = threading.Semaphore(0)

    def release(self, batches=MANY):
        """Let `batches` more batches run."""
        self._permits.release(batches)

    async def started(self):
        """Wait until another batch has started."""
        assert await asyncio.to_thread(self.running.acquire, timeout=MAX_WAIT_S)


def open_small(folder):
    """Return the engine of a small database in the folder."""
    engine = open_engine(f"sqlite:///{folder / 'small.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"))
    return engine


def numbers(engine):
    """Return the stored numbers."""
    with engine.connect() as connection:
        return set(connection.execute(sa.text("SELECT n FROM numbers")).scalars())


def submit(batcher, work, *items, key=None):
    """Return the futures of the items."""
    return [batcher.submit(work, item, item if key is None else key) for item in items]


async def behind(batcher, work, *items, **options):
    """Return the futures of items that wait behind a held batch of the number 0."""
    work.hold()
    first = submit(batcher, work, 0)
    await work.started()
    return first + submit(batcher, work, *items, **options)


async def answered(futures):
    """Return the results or errors."""
    return await asyncio.gather(*futures, return_exceptions=True)
