"""ListOperations over the wire."""

import base64

import pytest
from google.protobuf import any_pb2, struct_pb2, timestamp_pb2
from grpc import StatusCode

from milepost.gen.milepost.v1 import operation_pb2 as pb
from milepost.tracking.page_tokens import MAX_TOKEN_LENGTH
from tests.e2e.client import FUNCTION, Client
from tests.e2e.refusals import refused
from tests.e2e.service import Service

STATUSES = ("PENDING", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED")


@pytest.fixture(scope="module")
def full(any_service: Service) -> Client:
    """A caller with 101 operations."""
    client = any_service.client("full")
    calls = [client.future("CreateOperation", function=FUNCTION) for _ in range(101)]
    for call in calls:
        call.result()
    return client


@pytest.fixture(scope="module")
def mixed(any_service: Service) -> Client:
    """A caller with an operation of each status, of two functions each."""
    client = any_service.client("mixed")
    for status in STATUSES:
        for function in (FUNCTION, "audio.mix"):
            client.create_in(status, function=function)
    return client


def listed(client, **fields):
    """Return one page."""
    return list(client.call("ListOperations", **fields).operations)


def ids(operations):
    """Return the ids of the operations."""
    return [operation.id for operation in operations]


def all_pages(client, **fields):
    """Return every page, each with its token."""
    token, pages = "", []
    while True:
        response = client.call("ListOperations", page_token=token, **fields)
        pages.append(list(response.operations))
        token = response.next_page_token
        if not token:
            return pages


def test_no_operations(alice):
    """A caller without operations gets an empty list and no token."""
    response = alice.call("ListOperations")
    assert not response.operations
    assert response.next_page_token == ""


def test_operations_are_listed_newest_first(alice):
    """All operations are listed, with id, function and status, the newest first."""
    first, second = alice.create(), alice.create(function="audio.mix")
    found = listed(alice)
    assert ids(found) in ([second.id, first.id], [first.id, second.id])
    order = [(operation.create_time.ToNanoseconds(), operation.id) for operation in found]
    assert order == sorted(order, reverse=True)
    assert {operation.function for operation in found} == {FUNCTION, "audio.mix"}
    assert {operation.status for operation in found} == {pb.OPERATION_STATUS_PENDING}


def test_only_the_own_are_listed(any_service, alice):
    """A caller lists its own operations only, with any grants."""
    bob = any_service.client("bob", roles=("CALLER", "WORKER"), functions=("*",))
    mine, theirs = alice.create(), bob.create()
    assert ids(listed(alice)) == [mine.id]
    assert ids(listed(bob)) == [theirs.id]


@pytest.mark.parametrize("status", STATUSES)
def test_status_filter(mixed, status):
    """With a status, only operations of that status are listed."""
    found = listed(mixed, statuses=[f"OPERATION_STATUS_{status}"])
    assert len(found) == 2
    assert {pb.OperationStatus.Name(operation.status) for operation in found} == {
        f"OPERATION_STATUS_{status}"
    }


def test_several_statuses(mixed):
    """A filter of several statuses, even repeated ones, lists operations of any of them."""
    wanted = [pb.OPERATION_STATUS_FAILED, pb.OPERATION_STATUS_PENDING, pb.OPERATION_STATUS_FAILED]
    found = listed(mixed, statuses=wanted)
    assert len(found) == 4
    assert {operation.status for operation in found} == set(wanted)


def test_function_filter(mixed):
    """With a function, only operations of exactly that function are listed."""
    found = listed(mixed, function="audio.mix")
    assert len(found) == 5
    assert {operation.function for operation in found} == {"audio.mix"}
    for near in ("audio", "audio.*", "audio.mi", "Audio.mix", "%"):
        assert listed(mixed, function=near) == []


def test_filters_apply_together(mixed):
    """Filters of status and function apply together."""
    (found,) = listed(mixed, statuses=["OPERATION_STATUS_COMPLETED"], function="audio.mix")
    assert (found.status, found.function) == (pb.OPERATION_STATUS_COMPLETED, "audio.mix")


def test_filters_that_match_nothing(mixed):
    """A filter that matches no operation gives an empty list and no token."""
    response = mixed.call("ListOperations", function="unknown.function")
    assert not response.operations
    assert response.next_page_token == ""


def test_time_range(mixed):
    """A time range includes its start and excludes its end."""
    everything = listed(mixed)
    times = sorted({operation.create_time.ToNanoseconds() for operation in everything})
    low, high = times[1], times[-1]
    start, end = timestamp_pb2.Timestamp(), timestamp_pb2.Timestamp()
    start.FromNanoseconds(low)
    end.FromNanoseconds(high)
    found = listed(mixed, create_time_from=start, create_time_to=end)
    assert ids(found) == [o.id for o in everything if low <= o.create_time.ToNanoseconds() < high]
    assert listed(mixed, create_time_from=end, create_time_to=start) == []


@pytest.mark.parametrize("seconds", [-62_135_596_800, 253_402_300_799])
def test_time_range_may_be_endless(mixed, seconds):
    """The minimum and the maximum timestamp are valid bounds of a range."""
    bound = timestamp_pb2.Timestamp(seconds=seconds)
    below = listed(mixed, create_time_to=bound)
    above = listed(mixed, create_time_from=bound)
    assert (len(below), len(above)) == ((0, 10) if seconds < 0 else (10, 0))


def test_default_page_has_50(full):
    """Without a page size, or with 0, a page has 50 operations."""
    for given in ({}, {"page_size": 0}):
        response = full.call("ListOperations", **given)
        assert len(response.operations) == 50
        assert response.next_page_token


@pytest.mark.parametrize("size", [1, 25, 100])
def test_page_size_is_used(full, size):
    """A page size from 1 to 100 is used."""
    assert len(listed(full, page_size=size)) == size


@pytest.mark.parametrize("size", [101, 2**31 - 1])
def test_page_size_above_the_maximum(full, size):
    """A page size above 100 means 100."""
    assert len(listed(full, page_size=size)) == 100


@pytest.mark.parametrize("size", [-1, -(2**31)])
def test_negative_page_size(full, size):
    """A negative page size is refused."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        listed(full, page_size=size)
    assert set(refusal.violations) == {"page_size"}
    assert str(size) in refusal.violations["page_size"]


@pytest.mark.parametrize("size", [7, 100])
def test_pages_have_no_overlap_and_no_gap(full, size):
    """The pages together hold every operation once, in one order."""
    pages = all_pages(full, page_size=size)
    found = [operation for page in pages for operation in page]
    assert len(found) == len(set(ids(found))) == 101
    assert [len(page) for page in pages[:-1]] == [size] * (101 // size)
    order = [(operation.create_time.ToNanoseconds(), operation.id) for operation in found]
    assert order == sorted(order, reverse=True)


def test_full_page_is_the_last(alice):
    """With exactly page_size operations there is no next token; with one more there is."""
    for _ in range(3):
        alice.create()
    exact = alice.call("ListOperations", page_size=3)
    assert (len(exact.operations), exact.next_page_token) == (3, "")
    alice.create()
    more = alice.call("ListOperations", page_size=3)
    assert len(more.operations) == 3
    assert more.next_page_token


def test_pages_hold_while_operations_come_and_go(alice):
    """Operations that exist during the whole listing are listed once, among creates and deletes."""
    stay = [alice.create() for _ in range(6)]
    gone = [alice.create_in("CANCELLED") for _ in range(2)]
    first = alice.call("ListOperations", page_size=4)
    assert set(ids(gone)) <= set(ids(first.operations))
    for operation in gone:
        alice.call("DeleteOperation", operation_id=operation.id)
    alice.create()
    found, token = list(first.operations), first.next_page_token
    while token:
        page = alice.call("ListOperations", page_size=4, page_token=token)
        found += page.operations
        token = page.next_page_token
    assert sorted(set(ids(found)) & set(ids(stay))) == sorted(ids(stay))
    assert len(ids(found)) == len(set(ids(found)))


def test_page_size_may_change_between_pages(full):
    """A token is valid with another page size and another view."""
    first = full.call("ListOperations", page_size=60)
    second = full.call(
        "ListOperations",
        page_size=100,
        page_token=first.next_page_token,
        view="OPERATION_VIEW_FULL",
    )
    assert len(second.operations) == 41
    assert second.next_page_token == ""


def refused_token(client, token, **fields):
    """Assert that the token is refused for this list."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        client.call("ListOperations", page_token=token, **fields)
    assert set(refusal.violations) == {"page_token"}


@pytest.fixture(scope="module")
def token(full) -> str:
    """A valid token."""
    text: str = full.call("ListOperations", page_size=10).next_page_token
    return text


@pytest.mark.parametrize(
    "broken",
    [
        "x",
        "????",
        "not a token",
        "AAAA",
        "\0",
        "ä" * 68,
        "A" * 68,
        "x" * (MAX_TOKEN_LENGTH + 1),
        "x" * 100_000,
    ],
    ids=range(9),
)
def test_malformed_token(full, broken):
    """A malformed or far too long token is refused."""
    refused_token(full, broken)


def test_tampered_token(full, token):
    """A token with any byte changed, removed or added is refused."""
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for place in range(len(raw)):
        changed = bytearray(raw)
        changed[place] ^= 1
        refused_token(full, base64.urlsafe_b64encode(changed).decode().rstrip("="))
    for changed in (token[:-1], token[:-4], token[4:], token + "AAAA", token * 2):
        refused_token(full, changed)


@pytest.mark.parametrize("junk", ["!!!!", " ", "\n", "====", "AA==", "="])
def test_token_with_junk_in_it(full, token, junk):
    """A token with inserted characters that base64 would skip is refused."""
    refused_token(full, token + junk)
    refused_token(full, junk + token)
    refused_token(full, token[:20] + junk + token[20:])


def test_foreign_token(any_service, full, token):
    """The token of another caller is refused, also for an admin."""
    refused_token(any_service.client("bob"), token)
    refused_token(any_service.client("root", roles=("ADMIN",)), token)
    assert full.call("ListOperations", page_token=token).operations


@pytest.mark.parametrize(
    "filters",
    [
        {"function": FUNCTION},
        {"statuses": ["OPERATION_STATUS_PENDING"]},
        {"create_time_from": timestamp_pb2.Timestamp(seconds=1)},
        {"create_time_to": timestamp_pb2.Timestamp(seconds=4_000_000_000)},
    ],
    ids=lambda filters: next(iter(filters)),
)
def test_token_of_other_filters(full, token, filters):
    """A token is valid only with the filters that it was issued for."""
    refused_token(full, token, **filters)
    filtered = full.call("ListOperations", page_size=10, **filters).next_page_token
    assert full.call("ListOperations", page_size=10, page_token=filtered, **filters).operations
    refused_token(full, filtered)


@pytest.mark.parametrize("number", [0, 6, -1])
def test_unknown_status(mixed, number):
    """An unspecified or unknown status in the filter is refused."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        listed(mixed, statuses=[pb.OPERATION_STATUS_PENDING, number])
    assert set(refusal.violations) == {"statuses[1]"}


def test_every_violation_of_a_list_is_reported_at_once(mixed):
    """All violations of a list request are reported at once."""
    with refused(StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST") as refusal:
        listed(
            mixed,
            page_size=-1,
            statuses=[0, 77],
            function=" ",
            owner="x" * 256,
            view=7,
            create_time_from=timestamp_pb2.Timestamp(seconds=2**60),
            create_time_to=timestamp_pb2.Timestamp(nanos=-1),
        )
    assert set(refusal.violations) == {
        "page_size",
        "statuses[0]",
        "statuses[1]",
        "function",
        "owner",
        "view",
        "create_time_from",
        "create_time_to",
    }


def test_views(alice):
    """A list has the BASIC view of each operation by default, and all fields in the FULL view."""
    result = any_pb2.Any()
    result.Pack(struct_pb2.Value(string_value="x"))
    metadata = struct_pb2.Struct()
    metadata.update({"a": 1})
    operation = alice.create(metadata=metadata)
    alice.transition("StartOperation", operation.id)
    completed = alice.transition("CompleteOperation", operation.id, result=result)
    failed = alice.create_in("FAILED", metadata=metadata)
    whole = {completed.id: completed, failed.id: failed}
    for view in ({}, {"view": "OPERATION_VIEW_UNSPECIFIED"}, {"view": "OPERATION_VIEW_BASIC"}):
        for found in listed(alice, **view):
            summary = pb.Operation()
            summary.CopyFrom(whole[found.id])
            for field in ("result", "errors", "metadata"):
                summary.ClearField(field)
            assert found == summary
    for found in listed(alice, view="OPERATION_VIEW_FULL"):
        assert found == whole[found.id]


def test_admin_lists_all_owners(any_service, alice, admin):
    """An admin lists the operations of all owners, or those of one."""
    bob = any_service.client("bob")
    function = f"only.{alice.subject}"
    mine, theirs = alice.create(function=function), bob.create(function=function)
    assert {*ids(listed(admin, function=function))} == {mine.id, theirs.id}
    assert ids(listed(admin, function=function, owner=bob.subject)) == [theirs.id]
    assert ids(listed(admin, owner=alice.subject)) == [mine.id]
    assert listed(admin, owner="unknown") == []


def test_only_an_admin_names_other_owners(any_service, alice):
    """A caller that is not an admin can filter by itself as the owner only."""
    operation = alice.create()
    assert ids(listed(alice, owner=alice.subject)) == [operation.id]
    bob = any_service.client("bob")
    refusals = set()
    for owner in (alice.subject, "unknown"):
        with refused(StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED") as refusal:
            listed(bob, owner=owner)
        assert refusal.facts == {"role": "ADMIN"}
        refusals.add(refusal.status.SerializeToString(deterministic=True))
    assert len(refusals) == 1
