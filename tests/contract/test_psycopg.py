"""The undocumented parts of psycopg that `storage/libpq.py` uses, which an upgrade may change."""

import psycopg
import pytest
from psycopg.adapt import Transformer
from psycopg.pq import ConnStatus, ExecStatus, Format
from sqlalchemy.engine import make_url


@pytest.fixture
def connection(postgres_url):
    """A connection of psycopg."""
    url = make_url(postgres_url).set(drivername="postgresql")
    with psycopg.connect(url.render_as_string(hide_password=False), autocommit=True) as connection:
        yield connection


def changed(name, does):
    """Return the failure message for an upgrade of psycopg."""
    return f"psycopg {psycopg.__version__} changed {name}: storage/libpq.py needs that it {does}"


def prepared(connection, sql, *parameters):
    """Return the result of a prepared statement, in the binary format."""
    connection.pgconn.prepare(b"s", sql)
    return connection.pgconn.exec_prepared(
        b"s", list(parameters), [Format.TEXT] * len(parameters), Format.BINARY
    )


def test_prepare(connection):
    """`PGconn.prepare` prepares a statement under a name, and returns the result."""
    result = connection.pgconn.prepare(b"s", b"SELECT $1::int")
    expected = changed("PGconn.prepare", "prepares a text under a name and returns a PGresult")
    assert result.status == ExecStatus.COMMAND_OK, expected
    query = "SELECT statement FROM pg_prepared_statements WHERE name = 's'"
    assert connection.execute(query).fetchone() == ("SELECT $1::int",), expected


def test_exec_prepared(connection):
    """`PGconn.exec_prepared` takes values, their formats and the format of the result."""
    result = prepared(connection, b"SELECT $1::int + 1", b"41")
    expected = changed("PGconn.exec_prepared", "takes (name, values, formats, result format)")
    assert result.get_value(0, 0) == (42).to_bytes(4, "big"), expected


def test_sizes_of_a_result(connection):
    """`PGresult.nfields` and `PGresult.ntuples` are the columns and the rows."""
    result = prepared(connection, b"SELECT n, n FROM generate_series(1, 3) AS n")
    assert result.status == ExecStatus.TUPLES_OK, changed("PGresult.status", "is an ExecStatus")
    assert result.nfields == 2, changed("PGresult.nfields", "counts the columns")
    assert result.ntuples == 3, changed("PGresult.ntuples", "counts the rows")


def test_status_of_a_connection(connection):
    """`PGconn.status` shows whether the connection is lost."""
    expected = changed("PGconn.status", "is a ConnStatus, and BAD once the connection is lost")
    assert connection.pgconn.status == ConnStatus.OK, expected
    connection.pgconn.exec_(b"SELECT pg_terminate_backend(pg_backend_pid())")
    assert connection.pgconn.status == ConnStatus.BAD, expected


def test_socket_of_a_connection(connection):
    """`PGconn.socket` is the descriptor of the connection."""
    assert connection.pgconn.socket == connection.fileno(), changed(
        "PGconn.socket", "is the descriptor of the connection"
    )


def test_rows_are_loaded(connection):
    """`Transformer.load_rows` returns Python rows of a part of a result."""
    reader = Transformer(connection)
    reader.set_pgresult(prepared(connection, b"SELECT n, n::text FROM generate_series(1, 3) AS n"))
    assert reader.load_rows(0, 2, tuple) == [(1, "1"), (2, "2")], changed(
        "Transformer.load_rows", "takes (first, end, factory) and returns the rows"
    )


def test_loaders_are_kept(connection):
    """`Transformer.set_pgresult` can keep the loaders of the previous result."""
    reader = Transformer(connection)
    sql = b"SELECT 1::bigint, now()"
    reader.set_pgresult(prepared(connection, sql), set_loaders=True)
    (first,) = reader.load_rows(0, 1, tuple)
    again = connection.pgconn.exec_prepared(b"s", [], [], Format.BINARY)
    reader.set_pgresult(again, set_loaders=False)
    (second,) = reader.load_rows(0, 1, tuple)
    assert [type(value) for value in first] == [type(value) for value in second], changed(
        "Transformer.set_pgresult", "keeps the loaders with set_loaders=False"
    )
    reader.set_pgresult(None, set_loaders=False)
    assert reader.pgresult is None, changed("Transformer.set_pgresult", "releases a result")


def test_error_of_a_result(connection):
    """`errors.error_from_result` returns the exception of a failed statement, by its SQLSTATE."""
    result = prepared(connection, b"SELECT 1 / $1::int", b"0")
    error = psycopg.errors.error_from_result(result)
    assert type(error) is psycopg.errors.DivisionByZero, changed(
        "errors.error_from_result", "returns the exception of the SQLSTATE"
    )
    assert error.sqlstate == "22012"
