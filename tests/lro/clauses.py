"""The clauses: what AIP-151 says, and what the stock clients need, one function each.

A clause returns None if it holds, or a text that says what the server did instead.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.longrunning import operations_proto_pb2 as lro
from google.protobuf import duration_pb2
from grpc import StatusCode

from tests.lro.target import Target, code_of

POLLS: Final = 400
"""Polls whose routing headers a future of Python has gathered after two hours."""
CALLS_AT_ONCE: Final = 200
CANCELLED: Final = 1
END_S: Final = 10.0
Verdict = str | None
Check = Callable[[Target], Verdict]


@dataclass(frozen=True)
class Clause:
    """One clause, with the reason why it matters."""

    name: str
    text: str
    check: Check


CLAUSES: Final[list[Clause]] = []


def clause(text: str) -> Callable[[Check], Check]:
    """Register a function as the check of a clause; its name is that of the clause."""

    def registered(check: Check) -> Check:
        CLAUSES.append(Clause(check.__name__.replace("_", "-"), text, check))
        return check

    return registered


def among(code: StatusCode, *allowed: StatusCode) -> Verdict:
    """Return a verdict on a code."""
    return None if code in allowed else f"{code.name} instead of {allowed[0].name}"


def unknown(target: Target) -> str:
    """Return a name of the form of the target's names that no operation has."""
    head, slash, last = target.start().rpartition("/")
    digits = str.maketrans("0123456789abcdef", "fedcba9876543210")
    return head + slash + last[:-6] + last[-6:].translate(digits)


@clause("an answer has the name that was asked for")
def get_name(target: Target) -> Verdict:
    """Check the name of an operation that was just started."""
    name = target.start()
    found = target.get(name).name
    return None if found == name else f"the name is {found!r}"


@clause("an active operation is not done, and has neither response nor error")
def active(target: Target) -> Verdict:
    """Check an operation that nothing ends."""
    operation = target.get(target.start())
    if operation.done:
        return "the operation was done at the first poll"
    return operation.WhichOneof("result") and "an active operation has a result"


@clause("an unknown name is NOT_FOUND")
def get_unknown(target: Target) -> Verdict:
    """Check a get of a name of the right form."""
    return among(target.code("GetOperation", name=unknown(target)), StatusCode.NOT_FOUND)


@clause("an empty name is INVALID_ARGUMENT or NOT_FOUND")
def get_without_name(target: Target) -> Verdict:
    """Check a get without a name."""
    code = target.code("GetOperation")
    return among(code, StatusCode.INVALID_ARGUMENT, StatusCode.NOT_FOUND)


@clause("the headers of Google's clients do not matter, and those of 400 polls have room")
def headers(target: Target) -> Verdict:
    """Check a get with the headers of a future that has polled for two hours."""
    name = target.start()
    routing = ("x-goog-request-params", f"name={name}")
    agent = ("x-goog-api-client", "gl-python/3.11 gax/2.44")
    if code := among(target.code("GetOperation", routing, agent, name=name), StatusCode.OK):
        return code
    grown = target.code("GetOperation", *[routing] * POLLS, name=name)
    return among(grown, StatusCode.OK) and f"{grown.name} with {POLLS} routing headers"


@clause("many polls at once are OK or UNAVAILABLE: all other codes end a future")
def load(target: Target) -> Verdict:
    """Check the codes of many calls at once."""
    name = target.start()
    calls = [target.begin("GetOperation", name=name) for _ in range(CALLS_AT_ONCE)]
    bad = {code_of("GetOperation", call) for call in calls} - {
        StatusCode.OK,
        StatusCode.UNAVAILABLE,
    }
    return ", ".join(sorted(code.name for code in bad)) or None


@clause("a completed operation is done, with a typed response and no error")
def response(target: Target) -> Verdict:
    """Check an operation that was completed."""
    operation = target.completed()
    if not operation.done or operation.WhichOneof("result") != "response":
        return f"done={operation.done} with {operation.WhichOneof('result')}"
    return None if operation.response.type_url else "the response has no type"


@clause("an operation that is done stays as it is")
def done_once(target: Target) -> Verdict:
    """Check that two polls of an ended operation are equal."""
    operation = target.completed()
    return None if target.get(operation.name) == operation else "a later poll differs"


@clause("a failed operation is done, with an error whose code is not 0")
def error(target: Target) -> Verdict:
    """Check an operation that failed."""
    operation = target.failed()
    if not operation.done or operation.WhichOneof("result") != "error":
        return f"done={operation.done} with {operation.WhichOneof('result')}"
    return None if operation.error.code else "the code of the error is 0"


@clause("a cancel answers at once, and again; then the operation ends, usually with code 1")
def cancel(target: Target) -> Verdict:
    """Check two cancels of an active operation, and its end."""
    name = target.start()
    for _ in range(2):
        if verdict := among(target.code("CancelOperation", name=name), StatusCode.OK):
            return verdict
    end = time.monotonic() + END_S
    while time.monotonic() < end:
        operation = target.get(name)
        if operation.done:
            is_other = operation.HasField("error") and operation.error.code != CANCELLED
            return f"it ended with code {operation.error.code}" if is_other else None
    return f"it had not ended {END_S:.0f} s after the cancel"


@clause("a cancel of an operation that is done is OK, and has no effect")
def cancel_done(target: Target) -> Verdict:
    """Check a cancel that comes too late."""
    operation = target.completed()
    verdict = among(target.code("CancelOperation", name=operation.name), StatusCode.OK)
    return verdict or (target.get(operation.name) != operation and "it changed") or None


@clause("a cancel of an unknown operation is NOT_FOUND")
def cancel_unknown(target: Target) -> Verdict:
    """Check a cancel of a name of the right form."""
    return among(target.code("CancelOperation", name=unknown(target)), StatusCode.NOT_FOUND)


@clause("a deleted operation is NOT_FOUND; a second delete is NOT_FOUND or OK")
def delete(target: Target) -> Verdict:
    """Check two deletes of an operation that is done."""
    name = target.completed().name
    first, gone, again = (
        target.code(f"{verb}Operation", name=name) for verb in ("Delete", "Get", "Delete")
    )
    return (
        among(first, StatusCode.OK)
        or among(gone, StatusCode.NOT_FOUND)
        or among(again, StatusCode.NOT_FOUND, StatusCode.OK)
    )


@clause("a delete of an active operation is OK or FAILED_PRECONDITION, and does not cancel it")
def delete_active(target: Target) -> Verdict:
    """Check a delete that comes too early."""
    name = target.start()
    code = target.code("DeleteOperation", name=name)
    if code is StatusCode.FAILED_PRECONDITION:
        return "it ended" if target.get(name).done else None
    return among(code, StatusCode.OK)


@clause("a list without a page size has a default, and the operations of its parent")
def list_default(target: Target) -> Verdict:
    """Check the first page of a list."""
    name = target.start()
    names = [found.name for found in target.call("ListOperations", name=target.parent).operations]
    return None if name in names else "the operation that started last is not on the first page"


@clause("a pager meets each operation once, and only an empty token ends it")
def list_pages(target: Target) -> Verdict:
    """Check a list with small pages."""
    started = {target.start() for _ in range(3)}
    seen: list[str] = []
    token = ""
    while True:
        page = target.call("ListOperations", name=target.parent, page_size=2, page_token=token)
        seen += [found.name for found in page.operations]
        token = page.next_page_token
        if not token or started <= set(seen):
            break
    if len(seen) != len(set(seen)):
        return "an operation was listed twice"
    return None if started <= set(seen) else "the list ended without some operations"


@clause("a page size below 0 is INVALID_ARGUMENT")
def list_negative(target: Target) -> Verdict:
    """Check a negative page size."""
    code = target.code("ListOperations", name=target.parent, page_size=-1)
    return among(code, StatusCode.INVALID_ARGUMENT)


@clause("a page size above the limit of the server counts as the limit")
def list_clamped(target: Target) -> Verdict:
    """Check the largest page size."""
    code = target.code("ListOperations", name=target.parent, page_size=2**31 - 1)
    return among(code, StatusCode.OK)


@clause("a foreign page token is INVALID_ARGUMENT")
def list_token(target: Target) -> Verdict:
    """Check a token that the server never wrote."""
    code = target.code("ListOperations", name=target.parent, page_token="none of yours")  # noqa: S106
    return among(code, StatusCode.INVALID_ARGUMENT)


@clause("a filter that the server does not understand is INVALID_ARGUMENT")
def list_filter(target: Target) -> Verdict:
    """Check a filter that is no filter."""
    code = target.code("ListOperations", name=target.parent, filter="done = ")
    return among(code, StatusCode.INVALID_ARGUMENT)


def waited(target: Target, timeout_s: int, within: float) -> Verdict:
    """Wait for an active operation, and return a verdict on the answer."""
    timeout = duration_pb2.Duration(seconds=timeout_s)
    start = time.monotonic()
    call = target.begin("WaitOperation", name=target.start(), timeout=timeout, within=within)
    if verdict := among(code_of("WaitOperation", call), StatusCode.OK):
        return verdict
    took = time.monotonic() - start
    answer: lro.Operation = call.result()
    return f"it took {took:.1f} s" if took > min(timeout_s, within) + 1 or answer.done else None


@clause("a wait answers at its timeout with the operation as it stands")
def wait_timeout(target: Target) -> Verdict:
    """Check a wait that ends before the call's deadline."""
    return waited(target, 1, 10)


@clause("a wait that is longer than the deadline of the call answers before the deadline")
def wait_deadline(target: Target) -> Verdict:
    """Check that the server ends no wait with DEADLINE_EXCEEDED."""
    return waited(target, 60, 2)


@clause("a wait for an operation that is done answers at once")
def wait_done(target: Target) -> Verdict:
    """Check a wait that has nothing to wait for."""
    name = target.completed().name
    timeout = duration_pb2.Duration(seconds=60)
    return among(target.code("WaitOperation", name=name, timeout=timeout), StatusCode.OK)


@clause("a wait for an unknown operation is NOT_FOUND")
def wait_unknown(target: Target) -> Verdict:
    """Check a wait for a name of the right form."""
    return among(target.code("WaitOperation", name=unknown(target)), StatusCode.NOT_FOUND)


@clause("metadata is always set, and always of one type")
def metadata(target: Target) -> Verdict:
    """Check the types of metadata that all clauses before this one have seen."""
    types = target.metadata_types
    if "" in types:
        return "an operation has no metadata"
    return None if len(types) == 1 else "several types: " + ", ".join(sorted(types))
