"""The audit log of a running service: complete lines that no caller can forge.

That every change and every refusal has one line is checked for every cell of the matrix.
"""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from grpc import StatusCode

from tests.e2e.client import FUNCTION, Client
from tests.e2e.refusals import refused
from tests.e2e.test_streaming import received, streaming, until_received

HOSTILE = '\u2028{"event": "operation changed"}\u202e\x85\x9b2J'


def test_names_cannot_forge_a_line(any_service, alice):
    """Line separators and escapes in the name of a function are escaped in the log."""
    tag = uuid.uuid4().hex
    operation = alice.create(function=f"video.{tag}{HOSTILE}")
    line = any_service.logged(operation_id=operation.id, transition="create")
    assert line["function"].startswith(f"video.{tag}\\u2028")
    assert line["function"].isprintable()
    (raw,) = (text for text in any_service.log().split("\n") if tag in text)
    assert raw.isprintable()
    assert raw.count('"event"') == 1


def test_ids_cannot_forge_a_line(any_service, alice):
    """Line breaks in an id do not start a new line of the log."""
    tag = uuid.uuid4().hex[:4]
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.get(f"{tag}\r\n\x1b[2J{{}}")
    line = any_service.logged(operation_id=f"{tag}\\r\\n\\x1b[2J{{}}")
    assert line["event"] == "call refused"


def check_progress(line: Mapping[str, Any], worker: Client, method: str) -> None:
    """Assert that the line names the reporter of the progress and the method."""
    assert (line["event"], line["level"], line["code"]) == ("operation changed", "info", "OK")
    assert (line["function"], line["status"]) == (FUNCTION, "PROCESSING")
    assert line["principal"] == worker.subject
    assert line["credential_id"] == worker.key.split("_")[1]
    assert line["method"] == f"milepost.v1.WorkerService/{method}"
    assert line["peer"].startswith("ipv4:127.0.0.1:")


def test_progress_has_a_line(any_service, alice):
    """Each committed progress has one line, also one that starts; a repetition adds none."""
    operation = alice.create()
    for progress in (0.25, 0.5):
        for _ in range(2):
            alice.transition(
                "UpdateProgress", operation.id, progress=progress, request_id=str(progress)
            )
    alice.transition("CompleteOperation", operation.id)
    any_service.logged(operation_id=operation.id, transition="complete")
    started, other = any_service.log_lines(operation_id=operation.id, transition="progress")
    assert (started["revision"], other["revision"]) == (2, 3)
    check_progress(started, alice, "UpdateProgress")
    check_progress(other, alice, "UpdateProgress")


async def test_progress_of_a_stream_has_its_line(any_service, worker):
    """Each commit of a stream has a line of that stream, also one that another call caused."""
    alice = any_service.client("alice")
    operation = alice.create()
    async with streaming(any_service, worker) as stream:
        await stream.ask(operation.id, progress=0.1)
        before = received(any_service)
        await stream.send(operation.id, progress=0.2)
        await until_received(any_service, before + 1)
        end = any_service.client("wanda", roles=("WORKER",), functions=("*",))
        await asyncio.to_thread(end.transition, "CompleteOperation", operation.id)
    done = any_service.logged(operation_id=operation.id, transition="complete")
    assert done["principal"] == end.subject
    lines = any_service.log_lines(operation_id=operation.id, transition="progress")
    assert [line["revision"] for line in lines] == [2, 3]
    for line in lines:
        check_progress(line, worker, "StreamProgress")
        assert line["trace_id"] == lines[0]["trace_id"] != done["trace_id"]
