"""The calls of the Python client continue the current trace, where OpenTelemetry is in use."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from milepost_client import Milepost, SyncMilepost
from milepost_client.trace_context import carried, creating_context, trace_metadata
from tests.unit.client_script import API_KEY, ID, Refusal, changed, got, serving

SPAN = SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1))
HEADER = f"00-{0xABC:032x}-{0xDEF:016x}-01"
CREATING = f"00-{0x123:032x}-{0x456:016x}-01"
IMPORT_S = 60


@contextmanager
def in_span() -> Iterator[None]:
    """Run the block in a span of the application."""
    with trace.use_span(NonRecordingSpan(SPAN)):
        yield


async def test_call_and_watch_continue_the_trace():
    """Every try of a call, and a watch, carry the current span; without one there is no header."""
    away = Refusal(grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    async with (
        serving(away, got(), changed(2), got()) as service,
        Milepost(service.address, api_key=API_KEY) as milepost,
    ):
        with in_span():
            await milepost.get(ID)
            _ = [operation async for operation in milepost.watch(ID)]
        await milepost.get(ID)
    assert [asked.metadata.get("traceparent") for asked in service.asked] == [HEADER] * 3 + [None]
    assert all("authorization" in asked.metadata for asked in service.asked)


async def test_blocking_call_continues_the_trace_of_its_thread():
    """A blocking call carries the span of the calling thread, not that of its event loop."""
    async with serving(got(), changed(2), got()) as service:

        def run():
            with SyncMilepost(service.address, api_key=API_KEY) as milepost:
                with in_span():
                    milepost.get(ID)
                    list(milepost.watch(ID))
                milepost.get(ID)

        await asyncio.to_thread(run)
    assert [asked.metadata.get("traceparent") for asked in service.asked] == [HEADER, HEADER, None]


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.context"])
def test_client_needs_no_opentelemetry(missing):
    """The client works, and imports nothing of OpenTelemetry, where it is not installed."""
    program = (
        f"import sys; sys.modules[{missing!r}] = None\n"
        "import milepost_client\n"
        "from milepost_client.trace_context import trace_metadata, current_context\n"
        "from milepost_client.trace_context import creating_context\n"
        "assert (trace_metadata(), current_context()) == ((), None)\n"
        f"assert creating_context({CREATING!r}) is None\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=IMPORT_S)


def test_client_does_not_import_opentelemetry():
    """The client itself does not import OpenTelemetry, which takes long."""
    program = (
        "import sys, milepost_client\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=IMPORT_S)


def test_without_a_span_there_is_no_header():
    """Without a current span a call has no header of a trace."""
    assert trace_metadata() == ()


@pytest.mark.parametrize("sent", [CREATING, f"{CREATING[:-1]}0", f"01{CREATING[2:]}-later"])
def test_creating_trace_is_current_in_the_block(sent):
    """Calls in the block carry the creating trace and its sampling; later ones do not."""
    with in_span():
        with carried(creating_context(sent)):
            (header,) = trace_metadata()
        assert header == ("traceparent", f"00-{sent[3:55]}")
        assert trace_metadata() == (("traceparent", HEADER),)


@pytest.mark.parametrize(
    "sent",
    [
        None,
        "",
        CREATING[:-1],
        f"{CREATING}-later",
        f"ff{CREATING[2:]}",
        CREATING.replace("-0", "-g", 1),
        f"00-{0:032x}-{0x456:016x}-01",
        f"00-{0x123:032x}-{0:016x}-01",
    ],
)
def test_malformed_creating_trace_is_ignored(sent):
    """A missing or malformed traceparent of an operation leaves the context as it is."""
    with in_span(), carried(creating_context(sent)):
        assert trace_metadata() == (("traceparent", HEADER),)
