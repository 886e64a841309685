"""Limits: calls by class, messages of streams, calls at once, addresses of bad credentials."""

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
from milepost.domain.errors import RateLimited
from milepost.domain.operation import Principal, Role
from milepost.domain.rates import Allowance, Allowances, RateLimitClass
from milepost.rpc.call import address_of
from milepost.rpc.interceptors.access import AdmissionInterceptor, RateLimitInterceptor
from milepost.rpc.interceptors.chain import InterceptedServer
from milepost.rpc.interceptors.errors import Errors
from milepost.rpc.methods import METHODS
from tests.e2e.rpcs import RPCS
from tests.unit.test_rates import Clock
from tests.waiting import until

SECONDS = 10.0
WORKERS = "milepost.v1.WorkerService"
CALLERS = "milepost.v1.OperationService"
LIMITS = Allowance(creates=5, lists=2, reads=10, changes=4, worker_writes=20)
Text = wrappers_pb2.StringValue


class Named:
    """An interceptor that believes who the caller says it is."""

    async def intercept(self, call_next: Any, call: Any, request: Any, context: Any) -> Any:
        """Let it in."""
        subject = str(call.metadata["subject"])
        call.authenticated = Principal(subject=subject, roles=frozenset(Role), credential_id="k")
        return await call_next(call, request, context)


class Gate:
    """A server with some methods, inside of the interceptors that limit."""

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
            Named(),
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
        """A unary call."""
        call = self.channel.unary_unary(f"/{method}", Text.SerializeToString, Text.FromString)
        given = (("subject", subject), *metadata.items())
        return call(Text(), metadata=given, timeout=SECONDS)

    async def codes(self, count: int, method: str, subject: str = "alice") -> list[StatusCode]:
        """The codes of so many calls, one after the other."""
        return [await self.begin(method, subject).code() for _ in range(count)]

    async def streamed(self, messages: int, subject: str = "alice") -> StatusCode:
        """The code of a stream of so many messages, read to its end."""
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
        """A stream of so many messages."""
        call = self.channel.stream_stream(
            f"/{WORKERS}/StreamProgress", Text.SerializeToString, Text.FromString
        )
        requests: list[Any] = [Text(value=str(n)) for n in range(messages)]
        return call(iter(requests), metadata=(("subject", subject),), timeout=SECONDS)


@pytest.fixture
async def gate() -> AsyncIterator[Gate]:
    """A server that listens."""
    async with Gate() as gate:
        yield gate


def retry_after(error: grpc.aio.AioRpcError) -> float:
    """How long the refusal asks to wait, in seconds."""
    status = rpc_status.from_call(error)
    found = error_details_pb2.RetryInfo()
    assert status.details[1].Unpack(found)
    return found.retry_delay.ToTimedelta().total_seconds()


def limited(limit: str) -> float:
    """How many refusals by this limit are counted."""
    return telemetry.registry.get_sample_value("milepost_limited_total", {"limit": limit}) or 0.0


# --- kinds of calls ---


def test_every_rpc_has_a_kind():
    """Every RPC of the protos counts as something, and nothing else is in the table."""
    assert set(METHODS) == {rpc.name for rpc in RPCS}


def test_long_running_calls_are_known():
    """The calls that wait for something to happen are the streams, waits and claims."""
    assert {name.partition("/")[2] for name, row in METHODS.items() if row.long_running} == {
        "WaitOperation", "WatchOperation", "ClaimOperations", "StreamProgress",
    }  # fmt: skip
    streams = {rpc.name for rpc in RPCS if rpc.shape != "unary_unary"}
    assert all(METHODS[name].long_running for name in streams)


@pytest.mark.parametrize(
    ("method", "kind"),
    [
        (f"{CALLERS}/CreateOperation", RateLimitClass.CREATES),
        (f"{CALLERS}/ListOperations", RateLimitClass.LISTS),
        (f"{CALLERS}/GetOperation", RateLimitClass.READS),
        (f"{CALLERS}/CancelOperation", RateLimitClass.CHANGES),
        (f"{CALLERS}/NotListed", RateLimitClass.CHANGES),
        (f"{WORKERS}/StartOperation", RateLimitClass.WORKER_WRITES),
    ],
)
async def test_each_kind_has_its_own_limit(gate, method, kind):
    """Each kind of call is limited by its own number, and the refusal is counted."""
    allowed = getattr(LIMITS, kind.value)
    before = limited(kind.value)
    codes = await gate.codes(allowed + 1, method)
    assert codes == [StatusCode.OK] * allowed + [StatusCode.RESOURCE_EXHAUSTED]
    assert limited(kind.value) == before + 1
    assert await gate.codes(1, method, "bob") == [StatusCode.OK]


async def test_kinds_do_not_share(gate):
    """Who has no create left still reads."""
    await gate.codes(6, f"{CALLERS}/CreateOperation")
    assert await gate.codes(1, f"{CALLERS}/GetOperation") == [StatusCode.OK]


async def test_some_principals_may_more(gate):
    """A principal with an allowance of its own has that, and the others have theirs."""
    codes = await gate.codes(51, f"{CALLERS}/CreateOperation", "vip")
    assert codes == [StatusCode.OK] * 50 + [StatusCode.RESOURCE_EXHAUSTED]


async def test_retry_info_is_true(gate):
    """Who comes back when RetryInfo says gets through; who comes earlier does not."""
    method = f"{CALLERS}/CreateOperation"
    await gate.codes(5, method)
    for _ in range(3):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gate.begin(method)
        wait = retry_after(caught.value)
        assert 0 < wait <= 12.001
        gate.clock.now += wait - 0.01
        assert await gate.codes(1, method) == [StatusCode.RESOURCE_EXHAUSTED]
        gate.clock.now += 0.01
        assert await gate.codes(1, method) == [StatusCode.OK]


async def test_updates_of_one_operation_have_an_interval():
    """One principal updates one operation once in an interval; other updates have their own."""
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
    await limits.charge(alice, update)  # a message of a stream, which is coalesced instead
    clock.now += 10.0
    await limits.charge(alice, update, operation_id="op_1")


async def test_buckets_of_the_process_are_counted():
    """The metrics show how many buckets this process stores."""
    buckets = local_buckets()
    await buckets.take(("creates", "alice"), LIMITS.rate(RateLimitClass.CREATES))
    assert telemetry.registry.get_sample_value("milepost_limit_buckets") == 1.0


# --- streams ---


async def test_messages_of_a_stream_count(gate):
    """A stream costs its opening and each of its messages; beyond the limit it ends."""
    call = gate.stream(LIMITS.worker_writes)
    answers = [(await call.read()).value for _ in range(LIMITS.worker_writes - 1)]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED
    assert retry_after(caught.value) > 0
    assert answers == gate.read == [str(n) for n in range(LIMITS.worker_writes - 1)]


async def test_streams_and_calls_share_a_limit(gate):
    """Messages of streams and unary calls of one kind are counted together."""
    assert await gate.streamed(14) is StatusCode.OK
    codes = await gate.codes(6, f"{WORKERS}/StartOperation")
    assert codes == [StatusCode.OK] * 5 + [StatusCode.RESOURCE_EXHAUSTED]
    assert await gate.streamed(1) is StatusCode.RESOURCE_EXHAUSTED
    assert await gate.streamed(1, "bob") is StatusCode.OK


# --- calls at once ---


async def held(gate: Gate, count: int, method: str, **metadata: str) -> list[Any]:
    """So many calls that do not end."""
    gate.go.clear()
    before = gate.admission.running.count
    subjects = (f"s-{before + n}" for n in range(count))
    calls = [asyncio.ensure_future(gate.begin(method, who, **metadata)) for who in subjects]
    await until(lambda: gate.admission.running.count == before + count)
    return calls


async def test_too_many_calls_at_once():
    """One call too many is told so at once, with RetryInfo; the others are served."""
    async with Gate(max_calls=3, max_waiting_calls=2) as gate:
        before = limited("calls")
        calls = await held(gate, 3, f"{CALLERS}/GetOperation")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gate.begin(f"{CALLERS}/GetOperation")
        assert caught.value.code() is StatusCode.UNAVAILABLE
        assert retry_after(caught.value) == 1.0
        assert limited("calls") == before + 1
        assert await gate.streamed(1) is StatusCode.OK
        gate.go.set()
        await asyncio.gather(*calls)
        assert await gate.codes(1, f"{CALLERS}/GetOperation") == [StatusCode.OK]


@pytest.mark.parametrize(
    ("method", "metadata"),
    [(f"{CALLERS}/WaitOperation", {}), (f"{CALLERS}/GetOperation", {"prefer": "wait=30"})],
)
async def test_calls_that_wait_have_their_own_bound(method, metadata):
    """Calls that wait are bounded apart, with the streams: they keep no others out."""
    async with Gate(max_calls=1, max_waiting_calls=2) as gate:
        before = limited("waiting_calls")
        calls = await held(gate, 2, method, **metadata)
        assert await gate.begin(method, **metadata).code() is StatusCode.UNAVAILABLE
        assert await gate.streamed(1) is StatusCode.UNAVAILABLE
        assert limited("waiting_calls") == before + 2
        (running,) = await held(gate, 1, f"{CALLERS}/GetOperation")
        gate.go.set()
        await asyncio.gather(*calls, running)
        assert await gate.streamed(1) is StatusCode.OK


async def test_calls_that_were_given_up_make_room():
    """A call whose caller went away takes no place any more."""
    async with Gate(max_calls=1, max_waiting_calls=1) as gate:
        (call,) = await held(gate, 1, f"{CALLERS}/GetOperation")
        call.cancel()
        await until(lambda: gate.admission.running.count == 0)
        gate.go.set()
        assert await gate.codes(2, f"{CALLERS}/GetOperation") == [StatusCode.OK] * 2


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
    """Bad credentials are counted by address without port; by network, where those are plenty."""
    assert address_of(peer) == address
    assert network_of(address) == network


def test_progress_interval_is_about_an_rpc():
    """There is a unary call that the progress interval limits."""
    updates = {name for name, row in METHODS.items() if row.use_case is UseCase.REPORT_PROGRESS}
    assert [rpc.method for rpc in RPCS if rpc.name in updates and rpc.shape == "unary_unary"] == [
        "UpdateProgress"
    ]
