"""The conformance kit for servers of google.longrunning: against this service, and a broken one."""

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
import pytest
from google.longrunning import operations_proto_pb2 as lro
from google.protobuf import any_pb2

from tests.e2e.lro.programs import ROOT
from tests.lro.clauses import CLAUSES
from tests.lro.report import DIFFERS, HOLDS, NOT_OFFERED, NOT_TRIED, findings
from tests.lro.target import Target


def test_every_clause_holds(any_service, alice, worker):
    """Every clause of the kit holds for the service, as its command reports."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.lro", any_service.address, "--milepost"],
        cwd=ROOT,
        env={**os.environ, "CALLER_KEY": alice.key, "WORKER_KEY": worker.key},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, DIFFERS in done.stdout) == (0, False), done.stdout + done.stderr
    assert done.stdout.count(HOLDS) >= len(CLAUSES)


SERVICE = "/google.longrunning.Operations/"


class Empty(grpc.GenericRpcHandler):
    """A server without any method."""

    def service(self, _details):
        """Return no handler."""


class Broken(grpc.GenericRpcHandler):
    """A server that does each thing wrong."""

    def service(self, details):
        """Return the handler of one method."""
        method = details.method.removeprefix(SERVICE)
        return grpc.unary_unary_rpc_method_handler(getattr(self, method))

    def GetOperation(self, _request, _context) -> bytes:  # noqa: N802 - a method of the proto
        """Return an operation that is done without a result, each time another."""
        self.count = getattr(self, "count", 0) + 1
        metadata = any_pb2.Any(type_url=f"t/{self.count}")
        return lro.Operation(name="other", metadata=metadata, done=True).SerializeToString()

    def ListOperations(self, request, context) -> bytes:  # noqa: N802 - a method of the proto
        """Return the same two operations on every page; refuse large pages."""
        if lro.ListOperationsRequest.FromString(request).page_size > 1_000:
            context.abort(grpc.StatusCode.OUT_OF_RANGE, "broken")
        operations = [lro.Operation(name="other")] * 2
        return lro.ListOperationsResponse(operations=operations).SerializeToString()

    def CancelOperation(self, _request, context):  # noqa: N802 - a method of the proto
        """Fail."""
        context.abort(grpc.StatusCode.INTERNAL, "broken")

    def DeleteOperation(self, _request, context):  # noqa: N802 - a method of the proto
        """Fail."""
        context.abort(grpc.StatusCode.INTERNAL, "broken")

    def WaitOperation(self, _request, context):  # noqa: N802 - a method of the proto
        """Fail."""
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "broken")


@contextmanager
def serving(handler: grpc.GenericRpcHandler) -> Iterator[Target]:
    """Serve a handler, as a target."""
    server = grpc.server(
        futures.ThreadPoolExecutor(4), handlers=[handler], maximum_concurrent_rpcs=4
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Target(
            channel=channel,
            start=lambda: "operations/123456",
            complete=lambda _name: None,
            fail=lambda _name: None,
        )
    server.stop(None)


@pytest.fixture
def broken() -> Iterator[Target]:
    """A server that does each thing wrong."""
    with serving(Broken()) as target:
        yield target


def test_every_clause_can_fail(broken):
    """Every clause finds a server that does the thing wrong."""
    found = {finding.clause.name: finding.result for finding in findings(broken)}
    assert found == {each.name: DIFFERS for each in CLAUSES}


def test_clauses_without_a_command_are_not_tried(broken):
    """A clause that needs a command which the target lacks is not tried."""
    broken.complete = broken.fail = None
    untried = {each.clause.name for each in findings(broken) if each.result == NOT_TRIED}
    assert untried == {
        "response", "done-once", "error", "cancel-done", "delete", "wait-done",
    }  # fmt: skip


def test_methods_that_are_not_there():
    """A method that the target lacks is no deviation, except GetOperation."""
    with serving(Empty()) as target:
        found = {finding.clause.name: finding.result for finding in findings(target)}
    absent = {name for name, result in found.items() if result == NOT_OFFERED}
    assert {name.partition("-")[0] for name in absent} == {"cancel", "delete", "list", "wait"}
    assert found["get-name"] == found["load"] == DIFFERS


def test_commands_start_the_operations():
    """The command line starts operations by a command, and reports one that fails."""
    words = ["127.0.0.1:1", "--start", "exit 3"]
    done = subprocess.run(
        [sys.executable, "-m", "tests.lro", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "exit code 3: exit 3" in done.stdout
