"""The cursor on PostgreSQL: values round-trip, and errors are those of psycopg."""

import os
import socket
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from milepost.domain.operation import Status
from milepost.storage.prepared_cursor import PreparedCursor, array
from milepost.storage.session import Session

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))
VALUES = {
    "text": TEXTS,
    "bytea": st.binary(),
    "bigint": st.integers(-(2**63), 2**63 - 1),
    "double precision": st.floats(allow_nan=False),
    "boolean": st.booleans(),
    "interval": st.timedeltas(timedelta(days=-10_000), timedelta(days=10_000)),
    "timestamptz": st.datetimes(
        datetime(1970, 1, 1),  # noqa: DTZ001 - hypothesis adds the zone
        datetime(2200, 1, 1),  # noqa: DTZ001
        timezones=st.just(UTC),
    ),
}
MANY = settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture
def database_url(postgres_url):
    """A PostgreSQL database."""
    return postgres_url


@pytest.fixture
def session(engine):
    """A session."""
    session = Session(engine)
    yield session
    session.reset()


@pytest.fixture
def cursor(session):
    """The cursor of the session."""
    assert isinstance(session.cursor, PreparedCursor)
    return session.cursor


@pytest.mark.parametrize("kind", VALUES)
def test_values_are_what_they_were(cursor, kind):
    """Values and None round-trip, alone and in an array."""

    @MANY
    @given(st.lists(st.none() | VALUES[kind], min_size=1))
    def check(values):
        cursor.execute(f"SELECT cast($1 AS {kind})", [values[0]])
        assert cursor.fetchall() == [(values[0],)]
        cursor.execute(f"SELECT unnest(cast($1 AS {kind}[]))", [array(values)])
        assert cursor.fetchall() == [(value,) for value in values]

    check()


def test_word_of_an_enumeration_is_a_text(cursor):
    """A status is passed as its text."""
    cursor.execute("SELECT $1::text", [Status.PENDING])
    assert cursor.fetchall() == [("PENDING",)]


def test_rows_are_given_once(cursor):
    """The rows of a statement are returned once."""
    cursor.execute("SELECT 1 UNION ALL SELECT 2")
    assert cursor.fetchall() == [(1,), (2,)]
    assert cursor.fetchall() == []


@pytest.mark.parametrize("value", ["a\0b", ["a\0b"]])
def test_nul_is_refused(cursor, value):
    """A text with NUL is refused, not truncated."""
    given_ = array(value) if isinstance(value, list) else value
    with pytest.raises(psycopg.DataError):
        cursor.execute("SELECT $1::text", [given_])
    cursor.execute("SELECT 1")
    assert cursor.fetchall() == [(1,)]


def test_value_of_another_type_is_a_defect(cursor):
    """A value of an unsupported type raises ProgrammingError."""
    with pytest.raises(psycopg.ProgrammingError):
        cursor.execute("SELECT $1::text", [object()])


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("SELEC", psycopg.errors.SyntaxError),
        ("SELECT * FROM nowhere", psycopg.errors.UndefinedTable),
        ("SELECT 1 / 0", psycopg.errors.DivisionByZero),
    ],
)
def test_errors_are_those_of_psycopg(cursor, sql, error):
    """A refused statement raises the error of its SQLSTATE, and the next one runs."""
    with pytest.raises(error) as caught:
        cursor.execute(sql)
    assert caught.value.sqlstate == error.sqlstate
    cursor.execute("SELECT 1")
    assert cursor.fetchall() == [(1,)]


def test_lost_connection_is_an_operational_error(session, cursor):
    """Every statement on a lost connection raises OperationalError."""
    connection = session.connection.connection.driver_connection
    with socket.socket(fileno=os.dup(connection.pgconn.socket)) as own:
        own.shutdown(socket.SHUT_RDWR)
    for _ in range(2):
        with pytest.raises(psycopg.OperationalError):
            cursor.execute("SELECT 1")


def test_columns_that_change_are_read(cursor):
    """A statement whose columns this session has changed is prepared again."""
    cursor.execute("CREATE TEMPORARY TABLE things (a integer)")
    cursor.execute("INSERT INTO things VALUES ($1)", [1])
    cursor.execute("SELECT * FROM things")
    assert cursor.fetchall() == [(1,)]
    cursor.execute("ALTER TABLE things ADD COLUMN b text")
    cursor.execute("SELECT * FROM things")
    assert cursor.fetchall() == [(1, None)]
