"""The protos: their generated code, their annotations, and the errors that they document."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from milepost.api.errors import MAPPING
from milepost.domain.errors import MilepostError
from milepost.gen.milepost.v1 import (
    admin_service_pb2,
    operation_pb2,
    operation_service_pb2,
    webhook_service_pb2,
    worker_service_pb2,
)

ROOT = Path(__file__).resolve().parents[2]
TEXTS = {path.name: path.read_text("utf-8") for path in (ROOT / "protos/milepost/v1").glob("*")}
FILES: list[FileDescriptor] = [
    module.DESCRIPTOR
    for module in (
        admin_service_pb2,
        operation_pb2,
        operation_service_pb2,
        webhook_service_pb2,
        worker_service_pb2,
    )
]
REQUIRED, OPTIONAL, OUTPUT_ONLY = (
    field_behavior_pb2.FieldBehavior.Value(name) for name in ("REQUIRED", "OPTIONAL", "OUTPUT_ONLY")
)
RESOURCES = (
    "Operation",
    "OperationMetadata",
    "ApiKey",
    "SigningSecret",
    "Delivery",
    "DeliveryAttempt",
)
ERROR = re.compile(r"// \* ([A-Z_]+(?:, [A-Z_]+)*) \(([A-Z_]+)\):")
RPC = re.compile(r"((?:^  //.*\n)+)^  rpc (\w+)", re.MULTILINE)
FIELD = re.compile(
    r"((?:^  +//.*\n)+)^  +(?:optional |repeated )?[\w.<>, ]+ \w+ = \d+", re.MULTILINE
)
SPECIFIC = {("ListOperations", "PERMISSION_DENIED"), ("ClaimOperations", "PERMISSION_DENIED")} | {
    ("UpdateProgress", "RATE_LIMITED")
}
"""Shared errors that an RPC returns for a further cause."""


def test_generated_code_is_up_to_date():
    """The generated code is that of the protos."""
    check = [sys.executable, "protos/generate.py", "--check"]
    result = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_set_the_packages_of_other_languages(file):
    """Every file has the same package for Go and for Java, and a Java class of its own."""
    options = file.GetOptions()
    assert options.go_package == "milepost.dev/go/gen/milepost/v1;milepostv1"
    assert options.java_package == "dev.milepost.v1"
    assert options.java_multiple_files
    stem = Path(file.name).stem
    assert options.java_outer_classname == "".join(map(str.title, stem.split("_"))) + "Proto"


def messages() -> dict[str, Descriptor]:
    """Return every message of the API by name."""
    return {name: each for file in FILES for name, each in file.message_types_by_name.items()}


def behaviors(field: FieldDescriptor) -> list[int]:
    """Return the annotations of one field."""
    annotation: Any = field_behavior_pb2.field_behavior
    return list(field.GetOptions().Extensions[annotation])


def sent(message: Descriptor) -> Iterator[FieldDescriptor]:
    """Return every field of a request, including those of its nested messages."""
    for field in message.fields:
        yield field
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("milepost."):
            yield from sent(inner)


@pytest.mark.parametrize("name", [name for name in messages() if name.endswith("Request")])
def test_fields_of_requests_are_required_or_optional(name):
    """Every field of a request, and of the messages in it, is either REQUIRED or OPTIONAL."""
    found = {field.full_name: behaviors(field) for field in sent(messages()[name])}
    assert all(each in ([REQUIRED], [OPTIONAL]) for each in found.values()), found


@pytest.mark.parametrize("name", RESOURCES)
def test_fields_of_resources_are_output_only(name):
    """Only the service writes the fields of a resource."""
    assert all(OUTPUT_ONLY in behaviors(field) for field in messages()[name].fields)


@pytest.mark.parametrize("name", TEXTS)
def test_comments_of_fields_are_noun_phrases(name):
    """The comment of a field describes its value; it does not begin with a verb."""
    verb = re.compile(r"(Tells|Names|Holds|Says|Counts|Keeps|Limits|Makes|Refuses|Shows|Leads)\b")
    comments = [re.sub(r"\s*//\s*", " ", comment).strip() for comment in FIELD.findall(TEXTS[name])]
    assert comments
    assert [comment for comment in comments if verb.match(comment)] == []


# --- errors ---


def documented(text: str) -> dict[str, str]:
    """Return the gRPC code of each reason that the comments of `text` list."""
    return {reason: code for reasons, code in ERROR.findall(text) for reason in reasons.split(", ")}


def shared() -> dict[str, str]:
    """Return the errors that every RPC may return."""
    return documented(TEXTS["operation.proto"])


def leaves(kind: type[MilepostError] = MilepostError) -> Iterator[type[MilepostError]]:
    """Return every error with a reason."""
    if hasattr(kind, "reason"):
        yield kind
    for child in kind.__subclasses__():
        yield from leaves(child)


def test_every_error_is_documented():
    """The protos list every error of the service with its code, and no others."""
    codes = {
        kind.reason: next(MAPPING[each] for each in kind.__mro__ if each in MAPPING).name
        for kind in leaves()
    }
    found = {reason: code for text in TEXTS.values() for reason, code in documented(text).items()}
    assert found == codes | {"INTERNAL": "INTERNAL"}


def test_shared_errors_are_documented_once():
    """An RPC lists a shared error only if it returns it for another cause."""
    assert shared()
    repeated = {
        (rpc, reason)
        for text in TEXTS.values()
        for comment, rpc in RPC.findall(text)
        for reason in documented(comment).keys() & shared()
    }
    assert repeated == SPECIFIC


@pytest.mark.parametrize("name", [name for name in TEXTS if name.endswith("_service.proto")])
def test_services_refer_to_the_shared_errors(name):
    """Each service says where the errors of every RPC are listed."""
    head = re.sub(r"\s*//\s*", " ", TEXTS[name].partition("\nservice ")[0])
    assert "listed at the head of operation.proto" in head
