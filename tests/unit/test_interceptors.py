"""The interceptors of every RPC, on a real server with a service for the tests."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import grpc
import pytest
from google.protobuf import wrappers_pb2
from grpc import StatusCode
from grpc_status import rpc_status

from milepost import telemetry
from milepost.access.admission import Admission
from milepost.access.unknown_callers import UnknownCallers
from milepost.api.errors import status_of
from milepost.domain.errors import Overloaded
from milepost.rpc.interceptors.access import AdmissionInterceptor
from milepost.rpc.interceptors.chain import InterceptedServer
from milepost.rpc.interceptors.errors import Errors
from milepost.rpc.interceptors.observe import CODES, Observe, is_deadline
from tests.unit.error_samples import SAMPLES, samples

SERVICE = "test.v1.Chain"
SHAPES = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
SECONDS = 10.0

Text = wrappers_pb2.StringValue
Behaviour = Callable[..., Awaitable[Any]]


class Recorder:
    """An interceptor that records calls and their outcomes."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self._name = name
        self._seen = seen

    async def intercept(self, call_next, call, request, context) -> Any:
        """Record the call and its outcome."""
        self._seen.append(f"{self._name} in")
        try:
            answer = await call_next(call, request, context)
        except BaseException as error:
            self._seen.append(f"{self._name} {type(error).__name__}")
            raise
        self._seen.append(f"{self._name} out")
        return answer


class Chain:
    """A server with a method of each shape, all with the same behaviour."""

    def __init__(self, unknown: UnknownCallers | None = None) -> None:
        self.seen: list[str] = []
        self.observe = Observe(telemetry.Tracing(), "127.0.0.1:7450")
        self.admission = Admission()
        self.behaviour: Behaviour = _nothing
        self._server = grpc.aio.server()
        interceptors = (
            self.observe,
            Recorder("outer", self.seen),
            Errors(),
            AdmissionInterceptor(self.admission),
            Recorder("inner", self.seen),
        )
        chained = InterceptedServer(self._server, interceptors, unknown)
        chained.add_registered_method_handlers(SERVICE, {s: self._handler(s) for s in SHAPES})
        self.port = self._server.add_insecure_port("127.0.0.1:0")

    async def __aenter__(self) -> Self:
        """Listen."""
        await self._server.start()
        self.channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.port}")
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Stop."""
        await self.channel.close()
        await self._server.stop(0)

    def _handler(self, shape: str) -> Any:
        async def once(request: Any, call: Any) -> Any:
            return await self.behaviour(request, call)

        async def stream(request: Any, call: Any) -> AsyncIterator[Any]:
            yield await self.behaviour(request, call)
            yield Text(value="and more")

        behaviour = stream if shape.endswith("stream") else once
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        return make(behaviour, Text.FromString, Text.SerializeToString)

    async def call(self, shape: str = "unary_unary", max_wait: float = SECONDS) -> list[str]:
        """Return the answer of the method of this shape."""
        call = self.begin(shape, max_wait)
        if shape.endswith("stream"):
            return [answer.value async for answer in call]
        return [(await call).value]

    def begin(self, shape: str = "unary_unary", max_wait: float = SECONDS) -> Any:
        """Start a call."""
        make = getattr(self.channel, shape)
        method = make(f"/{SERVICE}/{shape}", Text.SerializeToString, Text.FromString)
        request: Any = Text(value="x")
        return method(iter([request]) if shape.startswith("stream") else request, timeout=max_wait)


async def _nothing(_request: Any, _call: Any) -> Any:
    return Text(value="done")


def raising(error: BaseException) -> Behaviour:
    """Return a behaviour that raises `error` after it has read the request.

    A client of grpc.aio that is refused while it still writes sometimes reports INTERNAL.
    """

    async def behaviour(request: Any, _call: Any) -> Any:
        if not isinstance(request, Text):
            async for _ in request:
                pass
        raise error

    return behaviour


@pytest.fixture
async def chain() -> AsyncIterator[Chain]:
    """A running server."""
    async with Chain() as chain:
        yield chain


def counted(shape: str, code: str) -> float:
    """Return the number of counted calls of this shape with this code."""
    labels = {"method": f"{SERVICE}/{shape}", "code": code}
    value = telemetry.registry.get_sample_value("milepost_rpc_duration_seconds_count", labels)
    return value or 0.0


async def idle(chain: Chain) -> None:
    """Wait until no call runs."""
    await asyncio.wait_for(chain.observe.running.idle(), SECONDS)


shapes = pytest.mark.parametrize("shape", SHAPES)


@shapes
async def test_interceptors_surround_every_shape(chain, shape):
    """Unary calls and streams pass through the same interceptors, in the same order."""
    before = counted(shape, "OK")
    answers = await chain.call(shape)
    assert answers == (["done", "and more"] if shape.endswith("stream") else ["done"])
    await idle(chain)
    assert chain.seen == ["outer in", "inner in", "inner out", "outer out"]
    assert counted(shape, "OK") == before + 1


@shapes
@samples
async def test_error_becomes_its_status(chain, shape, error):
    """An exception of a method becomes one status, counted with its code, for every shape."""
    code = SAMPLES[error]
    before = counted(shape, code.name)
    chain.behaviour = raising(error)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chain.call(shape)
    assert caught.value.code() is code
    assert caught.value.details() == str(error)
    assert rpc_status.from_call(caught.value) == status_of(error)
    await idle(chain)
    assert chain.seen == [
        "outer in",
        "inner in",
        f"inner {type(error).__name__}",
        "outer AbortError",
    ]
    assert counted(shape, code.name) == before + 1


@shapes
async def test_defect_is_internal_with_a_constant_text(chain, shape):
    """Any other exception is INTERNAL with a trace id; its text never leaves the service."""
    before = counted(shape, "INTERNAL")
    chain.behaviour = raising(RuntimeError("internal secret"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chain.call(shape)
    assert caught.value.code() is StatusCode.INTERNAL
    assert re.fullmatch(r"internal error, trace id [0-9a-f]{32}", caught.value.details() or "")
    assert "secret" not in str(caught.value.trailing_metadata())
    await idle(chain)
    assert counted(shape, "INTERNAL") == before + 1


async def test_abort_of_a_servicer_is_kept(chain):
    """An abort of a servicer keeps its code and its text."""

    async def behaviour(_request: Any, call: Any) -> Any:
        await call.context.abort(StatusCode.OUT_OF_RANGE, "by itself")

    before = counted("unary_unary", "OUT_OF_RANGE")
    chain.behaviour = behaviour
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chain.call()
    assert (caught.value.code(), caught.value.details()) == (StatusCode.OUT_OF_RANGE, "by itself")
    await idle(chain)
    assert counted("unary_unary", "OUT_OF_RANGE") == before + 1


class Held:
    """A behaviour that runs until it is released, and records a cancellation."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.go = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def __call__(self, _request: Any, _call: Any) -> Any:
        """Wait."""
        self.began.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Text(value="done")


@shapes
async def test_cancelled_call_is_counted_as_cancelled(chain, shape):
    """A call that is cancelled ends at once, is counted CANCELLED, and leaves no task."""
    before = counted(shape, "CANCELLED")
    chain.behaviour = held = Held()
    call = chain.begin(shape)
    await asyncio.wait_for(held.began.wait(), SECONDS)
    assert chain.observe.running.count == 1
    call.cancel()
    await asyncio.wait_for(held.cancelled.wait(), SECONDS)
    await idle(chain)
    assert counted(shape, "CANCELLED") == before + 1
    assert chain.observe.running.count == 0
    assert chain.seen[-1] == "outer CancelledError"


@pytest.mark.parametrize(
    ("shape", "max_wait"), [*((shape, 0.3) for shape in SHAPES), ("unary_unary", 1.05)]
)
async def test_late_call_is_counted_as_late(chain, shape, max_wait):
    """A call whose deadline passes is DEADLINE_EXCEEDED for its caller and for the metric.

    That includes a deadline that gRPC rounds in transit: 1.05 s becomes up to 1.06 s.
    """
    before = counted(shape, "DEADLINE_EXCEEDED")
    chain.behaviour = held = Held()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chain.call(shape, max_wait=max_wait)
    assert caught.value.code() is StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(held.cancelled.wait(), SECONDS)
    await idle(chain)
    assert counted(shape, "DEADLINE_EXCEEDED") == before + 1


@pytest.mark.parametrize(
    ("remaining", "ran", "late"),
    [
        (None, 60.0, False),
        (0.0, 0.2, True),
        (0.02, 0.18, True),
        (0.05, 0.15, False),
        # As gRPC's core rounds: 1.005 s to 1.01, 10.04 to 10.1.
        (0.003, 1.006, True),
        (0.057, 10.043, True),
        (0.2, 9.9, False),
        (1.0, 99.1, True),
        (5.0, 95.0, False),
    ],
)
def test_deadline_differs_from_a_cancellation(remaining, ran, late):
    """A cancellation shortly before the deadline counts as the deadline, which gRPC rounds up."""
    assert is_deadline(remaining, ran=ran) is late


async def test_drain_refuses_new_calls(chain):
    """After admission is closed, new calls are UNAVAILABLE and the running one continues."""
    chain.behaviour = held = Held()
    running = chain.begin()
    await asyncio.wait_for(held.began.wait(), SECONDS)
    chain.admission.close()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await chain.call()
    assert caught.value.code() is StatusCode.UNAVAILABLE
    waiting = asyncio.create_task(chain.admission.running.idle())
    await asyncio.wait([waiting], timeout=0)
    assert not waiting.done()
    held.go.set()
    assert (await running).value == "done"
    await asyncio.wait_for(waiting, SECONDS)


async def test_stranger_above_the_bound_is_told_to_come_back():
    """An unknown caller above the bound gets UNAVAILABLE with RetryInfo, before everything else."""
    unknown = UnknownCallers(lambda _credential: False, per_second=1, clock=lambda: 1.0)
    async with Chain(unknown) as chain:
        assert await chain.call() == ["done"]
        seen = list(chain.seen)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await chain.call()
    assert caught.value.code() is StatusCode.UNAVAILABLE
    assert rpc_status.from_call(caught.value) == status_of(Overloaded())
    assert chain.seen == seen


async def test_undecodable_message(chain):
    """An undecodable message passes the interceptors like a request, and is then refused."""
    before = counted("unary_unary", "INVALID_ARGUMENT")
    call = chain.channel.unary_unary(f"/{SERVICE}/unary_unary")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"\xff\xff", timeout=SECONDS)
    assert caught.value.code() is StatusCode.INVALID_ARGUMENT
    await idle(chain)
    assert chain.seen == ["outer in", "inner in", "inner InvalidRequest", "outer AbortError"]
    assert counted("unary_unary", "INVALID_ARGUMENT") == before + 1


def test_every_code_has_a_name():
    """Every form in which gRPC returns a code has a name."""
    for code in StatusCode:
        assert CODES[code] == CODES[code.value[0]] == code.name
