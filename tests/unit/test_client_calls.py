"""How the client calls: credential, deadline, request ids, and trying again."""

import asyncio
from datetime import timedelta

import grpc
import pytest

from milepost_client import (
    DeadlineExceeded,
    Draining,
    Milepost,
    MilepostError,
    OperationError,
    RateLimited,
    StoreUnavailable,
    Unavailable,
    UndecodableAnswer,
)
from milepost_client.gen.milepost.v1 import operation_service_pb2, worker_service_pb2
from tests.unit.client_script import (
    API_KEY,
    ID,
    UNDECODABLE,
    Never,
    Refusal,
    got,
    operation,
    serving,
    talking,
    unavailable,
)

MUTATIONS = {
    "CreateOperation": lambda milepost, **key: milepost.create("f", **key),
    "CancelOperation": lambda milepost, **key: milepost.cancel(ID, **key),
    "DeleteOperation": lambda milepost, **key: milepost.delete(ID, **key),
    "StartOperation": lambda milepost, **key: milepost.start(ID, **key),
    "UpdateProgress": lambda milepost, **key: milepost.update_progress(ID, 0.5, **key),
    "CompleteOperation": lambda milepost, **key: milepost.complete(ID, 1, **key),
    "FailOperation": lambda milepost, **key: milepost.fail(ID, [OperationError("E", "e")], **key),
    "ReleaseOperation": lambda milepost, **key: milepost.release(ID, delay=1, **key),
}


def answer(method):
    """Return the plainest answer to the method."""
    module = operation_service_pb2 if method in CALLER_METHODS else worker_service_pb2
    response = getattr(module, f"{method}Response")
    return response() if method == "DeleteOperation" else response(operation=operation())


CALLER_METHODS = {"CreateOperation", "CancelOperation", "DeleteOperation"}


@pytest.mark.parametrize("method", MUTATIONS)
async def test_mutation_carries_one_request_id_over_all_its_tries(method):
    """Every mutating call carries a request_id, the same for every try, another for every call."""
    script = [unavailable(), unavailable(), answer(method), answer(method)]
    async with talking(*script) as (milepost, service):
        await MUTATIONS[method](milepost)
        await MUTATIONS[method](milepost)
    assert service.methods == [method] * 4
    first, second, third, other = (request.request_id for request in service.requests)
    assert first == second == third != other
    assert len(first) == len(other) == 36


@pytest.mark.parametrize("method", MUTATIONS)
async def test_request_id_of_the_caller_is_used_as_it_is(method):
    """A request_id that the caller gives is sent unchanged."""
    async with talking(answer(method)) as (milepost, service):
        await MUTATIONS[method](milepost, request_id="mine:1")
    assert [request.request_id for request in service.requests] == ["mine:1"]


async def test_read_is_tried_again():
    """A read that finds the service away is sent again."""
    async with talking(unavailable(), got()) as (milepost, service):
        assert (await milepost.get(ID)).id == ID
    assert service.methods == ["GetOperation"] * 2


async def test_retry_waits_as_long_as_the_service_asks():
    """The next try comes no sooner than RetryInfo asks for."""
    async with talking(unavailable(milliseconds=200), got()) as (milepost, service):
        await milepost.get(ID)
    first, second = service.asked
    assert second.time - first.time >= 0.2


async def test_retries_stay_within_the_deadline():
    """When the pause asked for ends after the deadline, the error is raised at once."""
    away = unavailable("DRAINING", milliseconds=60_000)
    async with talking(away, got()) as (milepost, service):
        with pytest.raises(Draining) as caught:
            await milepost.get(ID)
    assert caught.value.retry_after == timedelta(minutes=1)
    assert service.methods == ["GetOperation"]


async def test_tries_share_one_deadline():
    """A later try has only what is left of the deadline."""
    async with talking(unavailable(milliseconds=300), got(), deadline=1.0) as (milepost, service):
        await milepost.get(ID)
    first, second = (asked.left for asked in service.asked)
    assert second <= first - 0.2  # gRPC sends deadlines coarsely


async def test_call_without_an_answer_ends_at_the_deadline():
    """A call that is not answered ends with DeadlineExceeded, which is a TimeoutError."""
    async with talking(Never(), deadline=0.1) as (milepost, _):
        with pytest.raises(DeadlineExceeded) as caught:
            await milepost.get(ID)
    assert isinstance(caught.value, TimeoutError)


async def test_deadline_may_be_a_timedelta():
    """The deadline is 10 s by default, and may be given as a timedelta."""
    async with serving(got(), got()) as service:
        async with Milepost(service.address, api_key=API_KEY) as milepost:
            await milepost.get(ID)
        minute = timedelta(minutes=1)
        async with Milepost(service.address, api_key=API_KEY, deadline=minute) as milepost:
            await milepost.get(ID)
    assert [round(asked.left) for asked in service.asked] == [10, 60]


BROKEN = {"UNAVAILABLE", "INTERNAL", "UNKNOWN", "CANCELLED", "DEADLINE_EXCEEDED"}
CODES = [code for code in grpc.StatusCode if code.name != "OK"]


@pytest.mark.parametrize("code", [code for code in CODES if code.name in BROKEN])
@pytest.mark.parametrize("domain", ["proxy.example", "milepost"])
async def test_broken_call_is_tried_again(code, domain):
    """A call that ends without an answer of the service is sent again, as it was.

    A reason of another domain is not one of the service.
    """
    reason = "PROXY" if domain != "milepost" else ""
    broken = Refusal(code, reason, domain=domain)
    response = operation_service_pb2.CreateOperationResponse(operation=operation())
    async with talking(broken, broken, response) as (milepost, service):
        await milepost.create("f")
    first, second, third = service.requests
    assert first == second == third


@pytest.mark.parametrize("code", [code for code in CODES if code.name not in BROKEN])
async def test_final_code_is_not_tried_again(code):
    """No code that says something of the request is tried again, UNAUTHENTICATED least of all."""
    async with talking(Refusal(code), got()) as (milepost, service):
        with pytest.raises(MilepostError) as caught:
            await milepost.get(ID)
    assert caught.value.code is code
    assert service.methods == ["GetOperation"]


@pytest.mark.parametrize("code", [code for code in CODES if code.name != "UNAVAILABLE"])
async def test_refusal_of_the_service_is_not_tried_again(code):
    """An answer of the service other than UNAVAILABLE is final, also one of a newer release."""
    for reason in ("INTERNAL", "A_NEW_REASON"):
        async with talking(Refusal(code, reason), got()) as (milepost, service):
            with pytest.raises(MilepostError) as caught:
                await milepost.get(ID)
        assert caught.value.reason == reason
        assert service.methods == ["GetOperation"]


async def test_claim_is_tried_again():
    """A claim that found no service, or broke, is sent again: its operations went back."""
    answer = worker_service_pb2.ClaimOperationsResponse(operations=[operation("PROCESSING")])
    broken = Refusal(grpc.StatusCode.INTERNAL)
    async with talking(unavailable(), broken, answer) as (milepost, _):
        assert [claimed.id for claimed in await milepost.claim(["f"])] == [ID]


async def test_limit_is_told_and_not_tried_again():
    """A rate limit is raised at once, with the pause that the service asks for."""
    limit = Refusal(
        grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_after=timedelta(seconds=7)
    )
    async with talking(limit) as (milepost, _):
        with pytest.raises(RateLimited) as caught:
            await milepost.create("f")
    assert caught.value.retry_after == timedelta(seconds=7)


async def test_service_that_is_not_there_is_unavailable():
    """When nobody listens, the call is tried until the deadline and ends with Unavailable."""
    async with serving() as service:
        address = service.address
    async with Milepost(address, api_key=API_KEY, deadline=0.3) as milepost:
        with pytest.raises(Unavailable) as caught:
            await milepost.get(ID)
    assert caught.value.reason == ""


async def test_service_that_comes_back_is_found():
    """A call that began while nobody listened is answered once somebody does."""
    async with serving() as service:
        address = service.address
    async with Milepost(address, api_key=API_KEY) as milepost:
        reading = asyncio.create_task(milepost.get(ID))
        async with serving(got(), address=address):
            assert (await reading).id == ID


async def test_last_error_is_told_when_all_tries_fail():
    """When the service stays away, its last answer is raised."""
    async with talking(*[unavailable() for _ in range(50)], deadline=0.5) as (milepost, service):
        with pytest.raises(StoreUnavailable):
            await milepost.get(ID)
    assert len(service.asked) > 1


async def test_api_key_travels_as_bearer_token():
    """Every call carries the API key in its metadata, and says which client it comes from."""
    async with talking(got()) as (milepost, service):
        await milepost.get(ID)
    (asked,) = service.asked
    assert asked.metadata["authorization"] == f"Bearer {API_KEY}"
    assert asked.metadata["user-agent"].startswith("milepost-client-python/")


async def test_api_key_is_shown_nowhere():
    """Neither the client nor its errors show the API key."""
    async with talking(Refusal(grpc.StatusCode.UNAUTHENTICATED)) as (milepost, service):
        with pytest.raises(MilepostError) as caught:
            await milepost.get(ID)
    assert repr(milepost) == f"Milepost('{service.address}')"
    shown = f"{milepost!r} {caught.value!r} {caught.value.__cause__!r} {caught.value.__dict__}"
    assert API_KEY not in shown


async def test_cancelled_caller_leaves_at_once():
    """A task that is cancelled while it waits for an answer ends, without another try."""
    async with talking(Never(), got()) as (milepost, service):
        reading = asyncio.create_task(milepost.get(ID))
        async with asyncio.timeout(5):
            while not service.asked:  # noqa: ASYNC110 - a service has no event for this
                await asyncio.sleep(0)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
    assert service.methods == ["GetOperation"]


@pytest.mark.parametrize("key", ["", "two words", "line\n", "clé"])
def test_broken_api_key_is_refused_without_showing_it(key):
    """A key that cannot travel in metadata is refused, in words that do not repeat it."""
    with pytest.raises(ValueError, match="API key") as caught:
        Milepost("127.0.0.1:7450", api_key=key)
    assert not key or key not in str(caught.value)


async def test_client_works_only_while_open():
    """A client that is not open says how it is meant to be used; one that is open stays so."""
    milepost = Milepost("127.0.0.1:7450", api_key=API_KEY)
    with pytest.raises(RuntimeError, match="with statement"):
        await milepost.get(ID)
    async with milepost:
        with pytest.raises(RuntimeError, match="open already"):
            await milepost.__aenter__()
    with pytest.raises(RuntimeError, match="with statement"):
        await milepost.get(ID)


@pytest.mark.parametrize("method", MUTATIONS)
async def test_undecodable_answer_is_an_error_of_the_client(method):
    """An answer that cannot be decoded is raised as that, once: the service accepted the call."""
    async with talking(UNDECODABLE) as (milepost, service):
        with pytest.raises(UndecodableAnswer):
            await MUTATIONS[method](milepost)
    assert service.methods == [method]


READS = {
    "get": lambda milepost: milepost.get(ID),
    "list": lambda milepost: anext(milepost.list()),
    "wait": lambda milepost: milepost.wait(ID),
    "result": lambda milepost: milepost.result(ID),
    "claim": lambda milepost: milepost.claim(["f"]),
    "deliveries": lambda milepost: anext(milepost.deliveries()),
    "signing_secrets": lambda milepost: milepost.signing_secrets(),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
async def test_undecodable_read_is_an_error_of_the_client(read):
    """A read or a claim whose answer cannot be decoded is raised as that."""
    async with talking(UNDECODABLE) as (milepost, _):
        with pytest.raises(UndecodableAnswer):
            await read(milepost)
