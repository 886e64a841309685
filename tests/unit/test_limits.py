"""Limits: rates by class, messages of streams, concurrent calls, addresses of bad credentials."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, Self

import grpc
import pytest
from google.protobuf import wrappers_pb2
from google.rpc import error_details_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from milepost import telemetry
from milepost.access.admission import Admission
from milepost.access.bad_credentials import network_of
from milepost.access.policy import UseCase
from milepost.access.rate_limits import PROGRESS_LIMIT, RateLimits, local_buckets
from milepost.access.token_buckets import LocalBuckets
from milepost.api.methods import METHODS
from milepost.domain.errors import RateLimited
from milepost.domain.operation import Principal, Role
from milepost.domain.rates import Allowance, Allowances, RateLimitClass
from milepost.rpc.call import address_of
from milepost.rpc.interceptors.access import AdmissionInterceptor, RateLimitInterceptor
from milepost.rpc.interceptors.chain import InterceptedServer
from milepost.rpc.interceptors.errors import Errors
from tests.e2e.rpcs import RPCS
from tests.unit.test_rates import Clock
from tests.waiting import until

SECONDS = 10.0
WORKERS = "milepost.v1.WorkerService"
CALLERS = "milepost.v1.OperationService"
LIMITS = Allowance(creates=5, lists=2, reads=10, changes=4, worker_writes=20)
Text = wrappers_pb2.StringValue


class SubjectFromMetadata:
    """An interceptor that takes the subject from the metadata of the call."""

    async def intercept(self, call_next: Any, call: Any, request: Any, context: Any) -> Any:
        """Set the principal, and continue."""
        subject = str(call.metadata["subject"])
        call.authenticated = Principal(subject=subject, roles=frozenset(Role), credential_id="k")
        return await call_next(call, request, context)


class LimitedServer:
    """A server with some methods behind the limiting interceptors."""

    def __init__(self, interval: float = 0.0, **bounds: int) -> None:
        self.clock = Clock()
        self.read: list[str] = []
        self.go = asyncio.Event()
        self.go.set()
        self.admission = Admission(**bounds)
        allowances = Allowances(default=LIMITS, by_subject={"vip": Allowance(creates=50)})
        limits = RateLimits(
            LocalBuckets(clock=self.clock),
            allowances,
            progress_interval=timedelta(seconds=interval),
        )
        self._server = grpc.aio.server()
        interceptors = (
            Errors(),
            AdmissionInterceptor(self.admission),
            SubjectFromMetadata(),
            RateLimitInterceptor(limits),
        )
        chained = InterceptedServer(self._server, interceptors)
        unary = grpc.unary_unary_rpc_method_handler(
            self._answer, Text.FromString, Text.SerializeToString
        )
        stream = grpc.stream_stream_rpc_method_handler(
            self._stream, Text.FromString, Text.SerializeToString
        )
        names = ("CreateOperation", "GetOperation", "ListOperations", "CancelOperation")
        waits = {"WaitOperation": unary, "NotListed": unary}
        chained.add_registered_method_handlers(CALLERS, dict.fromkeys(names, unary) | waits)
        chained.add_registered_method_handlers(
            WORKERS, {"StreamProgress": stream, "StartOperation": unary}
        )
        self._port = self._server.add_insecure_port("127.0.0.1:0")

    async def _answer(self, _request: Any, _context: Any) -> Any:
        await self.go.wait()
        return Text(value="done")

    async def _stream(self, messages: Any, _context: Any) -> AsyncIterator[Any]:
        async for message in messages:
            self.read.append(message.value)
            yield message

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self._port}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop."""
        await self.channel.close()
        await self._server.stop(0)

    def begin(self, method: str, subject: str = "alice", **metadata: str) -> Any:
        """Start a unary call."""
        call = self.channel.unary_unary(f"/{method}", Text.SerializeToString, Text.FromString)
        given = (("subject", subject), *metadata.items())
        return call(Text(), metadata=given, timeout=SECONDS)

    async def codes(self, count: int, method: str, subject: str = "alice") -> list[StatusCode]:
        """Return the codes of `count` calls, one after the other."""
        return [await self.begin(method, subject).code() for _ in range(count)]

    async def streamed(self, messages: int, subject: str = "alice") -> StatusCode:
        """Return the code of a stream of `messages` messages, read to its end."""
        call = self.stream(messages, subject)
        try:
            return await self._drained(call)
        except grpc.aio.AioRpcError as error:
            return error.code()

    @staticmethod
    async def _drained(call: Any) -> StatusCode:
        async for _ in call:
            pass
        code: StatusCode = await call.code()
        return code

    def stream(self, messages: int, subject: str = "alice") -> Any:
        """Open a stream of `messages` messages."""
        call = self.channel.stream_stream(
            f"/{WORKERS}/StreamProgress", Text.SerializeToString, Text.FromString
        )
        requests: list[Any] = [Text(value=str(n)) for n in range(messages)]
        return call(iter(requests), metadata=(("subject", subject),), timeout=SECONDS)


@pytest.fixture
async def server() -> AsyncIterator[LimitedServer]:
    """A running server."""
    async with LimitedServer() as server:
        yield server


def retry_after(error: grpc.aio.AioRpcError) -> float:
    """Return the retry delay of a refusal in seconds."""
    status = rpc_status.from_call(error)
    found = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(found)
    return found.retry_delay.ToTimedelta().total_seconds()


def limited(limit: str) -> float:
    """Return the number of counted refusals by this limit."""
    return telemetry.registry.get_sample_value("milepost_limited_total", {"limit": limit}) or 0.0


# --- rate-limit classes ---


def test_every_rpc_has_a_row():
    """The table has a row for every RPC of the protos, and no other."""
    assert set(METHODS) == {rpc.name for rpc in RPCS}


def test_long_running_calls():
    """The long-running calls are the streams, waits and claims."""
    assert {name.partition("/")[2] for name, row in METHODS.items() if row.long_running} == {
        "WaitOperation", "WatchOperation", "ClaimOperations", "StreamProgress",
    }  # fmt: skip
    streams = {rpc.name for rpc in RPCS if rpc.shape != "unary_unary"}
    assert all(METHODS[name].long_running for name in streams)


@pytest.mark.parametrize(
    ("method", "rate_class"),
    [
        (f"{CALLERS}/CreateOperation", RateLimitClass.CREATES),
        (f"{CALLERS}/ListOperations", RateLimitClass.LISTS),
        (f"{CALLERS}/GetOperation", RateLimitClass.READS),
        (f"{CALLERS}/CancelOperation", RateLimitClass.CHANGES),
        (f"{CALLERS}/NotListed", RateLimitClass.CHANGES),
        (f"{WORKERS}/StartOperation", RateLimitClass.WORKER_WRITES),
    ],
)
async def test_each_class_has_its_own_limit(server, method, rate_class):
    """Each class of calls has its own limit, and the refusal is counted."""
    allowed = getattr(LIMITS, rate_class.value)
    before = limited(rate_class.value)
    codes = await server.codes(allowed + 1, method)
    assert codes == [StatusCode.OK] * allowed + [StatusCode.RESOURCE_EXHAUSTED]
    assert limited(rate_class.value) == before + 1
    assert await server.codes(1, method, "bob") == [StatusCode.OK]


async def test_classes_have_separate_buckets(server):
    """A principal whose creates are used up can still read."""
    await server.codes(6, f"{CALLERS}/CreateOperation")
    assert await server.codes(1, f"{CALLERS}/GetOperation") == [StatusCode.OK]


async def test_principal_with_its_own_allowance(server):
    """An allowance of one principal replaces the default for that principal only."""
    codes = await server.codes(51, f"{CALLERS}/CreateOperation", "vip")
    assert codes == [StatusCode.OK] * 50 + [StatusCode.RESOURCE_EXHAUSTED]


async def test_retry_info_is_exact(server):
    """A retry after the delay of RetryInfo is accepted, and an earlier one is refused."""
    method = f"{CALLERS}/CreateOperation"
    await server.codes(5, method)
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.begin(method)
        wait = retry_after(caught.value)
        assert 0 < wait <= 12.001
        server.clock.now += wait - 0.01
        assert await server.codes(1, method) == [StatusCode.RESOURCE_EXHAUSTED]
        server.clock.now += 0.01
        assert await server.codes(1, method) == [StatusCode.OK]


async def test_updates_of_one_operation_have_an_interval():
    """A principal may update one operation once in an interval; other operations are separate."""
    alice, bob = (
        Principal(subject=subject, roles=frozenset(Role), credential_id="k")
        for subject in ("alice", "bob")
    )
    clock = Clock()
    limits = RateLimits(
        LocalBuckets(clock=clock),
        Allowances(default=LIMITS),
        progress_interval=timedelta(seconds=10),
    )
    update, start = (METHODS[f"{WORKERS}/{name}"] for name in ("UpdateProgress", "StartOperation"))
    await limits.charge(alice, update, operation_id="op_1")
    with pytest.raises(RateLimited) as caught:
        await limits.charge(alice, update, operation_id="op_1")
    assert caught.value.limit == PROGRESS_LIMIT
    await limits.charge(alice, update, operation_id="op_2")
    await limits.charge(bob, update, operation_id="op_1")
    await limits.charge(alice, start, operation_id="op_1")
    await limits.charge(alice, update)  # a message of a stream is coalesced instead
    clock.now += 10.0
    await limits.charge(alice, update, operation_id="op_1")


async def test_buckets_of_the_process_are_counted():
    """The metrics show how many buckets this process stores."""
    buckets = local_buckets()
    await buckets.take(("creates", "alice"), LIMITS.rate(RateLimitClass.CREATES))
    assert telemetry.registry.get_sample_value("milepost_limit_buckets") == 1.0


# --- streams ---


async def test_messages_of_a_stream_count(server):
    """A stream counts once for its opening and once for each message; beyond the limit it ends."""
    call = server.stream(LIMITS.worker_writes)
    answers = [(await call.read()).value for _ in range(LIMITS.worker_writes - 1)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert retry_after(caught.value) > 0
    assert answers == server.read == [str(n) for n in range(LIMITS.worker_writes - 1)]


async def test_streams_and_calls_share_a_limit(server):
    """Messages of streams and unary calls of one class share a limit."""
    assert await server.streamed(14) is StatusCode.OK
    codes = await server.codes(6, f"{WORKERS}/StartOperation")
    assert codes == [StatusCode.OK] * 5 + [StatusCode.RESOURCE_EXHAUSTED]
    assert await server.streamed(1) is StatusCode.RESOURCE_EXHAUSTED
    assert await server.streamed(1, "bob") is StatusCode.OK


# --- concurrent calls ---


async def held(server: LimitedServer, count: int, method: str, **metadata: str) -> list[Any]:
    """Start `count` calls that do not end."""
    server.go.clear()
    before = server.admission.running.count
    subjects = (f"s-{before + n}" for n in range(count))
    calls = [asyncio.ensure_future(server.begin(method, who, **metadata)) for who in subjects]
    await until(lambda: server.admission.running.count == before + count)
    return calls


async def test_too_many_concurrent_calls():
    """A call above the limit is refused at once, with RetryInfo; the others are served."""
    async with LimitedServer(max_calls=3, max_waiting_calls=2) as server:
        before = limited("calls")
        calls = await held(server, 3, f"{CALLERS}/GetOperation")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await server.begin(f"{CALLERS}/GetOperation")
        assert caught.value.code() is StatusCode.UNAVAILABLE
        assert retry_after(caught.value) == 1.0
        assert limited("calls") == before + 1
        assert await server.streamed(1) is StatusCode.OK
        server.go.set()
        await asyncio.gather(*calls)
        assert await server.codes(1, f"{CALLERS}/GetOperation") == [StatusCode.OK]


@pytest.mark.parametrize(
    ("method", "metadata"),
    [(f"{CALLERS}/WaitOperation", {}), (f"{CALLERS}/GetOperation", {"prefer": "wait=30"})],
)
async def test_long_running_calls_have_their_own_limit(method, metadata):
    """Waits and streams have their own limit, and do not take places of other calls."""
    async with LimitedServer(max_calls=1, max_waiting_calls=2) as server:
        before = limited("waiting_calls")
        calls = await held(server, 2, method, **metadata)
        assert await server.begin(method, **metadata).code() is StatusCode.UNAVAILABLE
        assert await server.streamed(1) is StatusCode.UNAVAILABLE
        assert limited("waiting_calls") == before + 2
        (running,) = await held(server, 1, f"{CALLERS}/GetOperation")
        server.go.set()
        await asyncio.gather(*calls, running)
        assert await server.streamed(1) is StatusCode.OK


async def test_cancelled_calls_release_their_place():
    """A cancelled call does not count any more."""
    async with LimitedServer(max_calls=1, max_waiting_calls=1) as server:
        (call,) = await held(server, 1, f"{CALLERS}/GetOperation")
        call.cancel()
        await until(lambda: server.admission.running.count == 0)
        server.go.set()
        assert await server.codes(2, f"{CALLERS}/GetOperation") == [StatusCode.OK] * 2


# --- addresses ---


@pytest.mark.parametrize(
    ("peer", "address", "network"),
    [
        ("ipv4:192.0.2.7:50123", "192.0.2.7", "192.0.2.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:5", "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("ipv6:[2001:db8:1:2::9]:1", "2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("ipv6:%5B::1%5D:50123", "::1", "::/64"),
        ("ipv6:%5B::ffff:192.0.2.7%5D:50123", "::ffff:192.0.2.7", "192.0.2.7"),
        ("ipv6:%5Bfe80::1%25eth0%5D:50123", "fe80::1%eth0", "fe80::/64"),
        ("unix:/run/milepost.sock", "unix", "unix"),
        ("unix:", "unix", "unix"),
    ],
)
def test_address_of_a_peer(peer, address, network):
    """Bad credentials are counted by IPv4 address or IPv6 network, without the port."""
    assert address_of(peer) == address
    assert network_of(address) == network


def test_progress_interval_limits_an_rpc():
    """The unary call that the progress interval limits exists."""
    updates = {name for name, row in METHODS.items() if row.use_case is UseCase.REPORT_PROGRESS}
    assert [rpc.method for rpc in RPCS if rpc.name in updates and rpc.shape == "unary_unary"] == [
        "UpdateProgress"
    ]
