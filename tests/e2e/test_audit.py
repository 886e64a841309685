"""The audit log of a running service: who, what, which, how, and nothing forged.

That every change and every refusal has one line is checked for every cell of the matrix.
"""

import uuid

from grpc import StatusCode

from tests.e2e.client import FUNCTION
from tests.e2e.refusals import refused
from tests.e2e.service import Service

HOSTILE = '\u2028{"event": "operation moved"}\u202e\x85\x9b2J'


def test_names_cannot_forge_a_line(any_service, alice):
    """A function with line separators and escapes in its name is logged harmlessly."""
    tag = uuid.uuid4().hex
    operation = alice.create(function=f"video.{tag}{HOSTILE}")
    line = any_service.logged(operation_id=operation.id, move="create")
    assert line["function"].startswith(f"video.{tag}\\u2028")
    assert line["function"].isprintable()
    (raw,) = (text for text in any_service.log().split("\n") if tag in text)
    assert raw.isprintable()
    assert raw.count('"event"') == 1


def test_ids_cannot_forge_a_line(any_service, alice):
    """Line breaks in the place of an id break no line."""
    tag = uuid.uuid4().hex[:4]
    with refused(StatusCode.INVALID_ARGUMENT):
        alice.get(f"{tag}\r\n\x1b[2J{{}}")
    line = any_service.logged(operation_id=f"{tag}\\r\\n\\x1b[2J{{}}")
    assert line["event"] == "call refused"


def test_progress_has_a_line_at_debug(tmp_path):
    """Every committed progress is a line at the level debug, with the fields of every change."""
    url = f"sqlite:///{tmp_path / 'milepost.db'}"
    with Service(url, tmp_path, log_level="debug") as service:
        alice = service.client("alice")
        operation = alice.create_in("PROCESSING")
        alice.move("UpdateProgress", operation.id, progress=0.5, request_id="once")
        alice.move("UpdateProgress", operation.id, progress=0.5, request_id="once")
        line = service.logged(operation_id=operation.id, move="progress")
        assert (line["level"], line["function"], line["code"]) == ("debug", FUNCTION, "OK")
        assert line["principal"] == alice.subject
        assert line["credential_id"] == alice.key.split("_")[1]
        assert line["method"] == "milepost.v1.WorkerService/UpdateProgress"
        assert line["peer"].startswith("ipv4:127.0.0.1:")
