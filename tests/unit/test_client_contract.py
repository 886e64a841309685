"""The contract of the clients, ``clients/README.md``, says what the service does."""

import re
from pathlib import Path

import pytest

from milepost.api.errors import MAPPING
from milepost.domain import errors as domain
from milepost.domain.operation import Status
from milepost.domain.transitions import TERMINAL
from milepost_client.refusal import BY_REASON

ROOT = Path(__file__).resolve().parents[2]
ERROR_ROW = re.compile(r"^\| `([A-Z_]+)` \| ([A-Z_]+) \| .+ \| (.+) \|$", re.MULTILINE)
STATUS_ROW = re.compile(r"^\| `([A-Z]+)` \| [^|]+ \| (yes|no) \|$", re.MULTILINE)
PROTO_ERROR = re.compile(r"// \* ([A-Z_]+(?:, [A-Z_]+)*) \(([A-Z_]+)\):")
PROTOS = sorted(path.name for path in (ROOT / "protos/milepost/v1").glob("*.proto"))


@pytest.fixture(scope="module")
def contract():
    """The text of the contract."""
    return (ROOT / "clients/README.md").read_text(encoding="utf-8")


def table(contract):
    """Return the gRPC code of every reason in the table of errors."""
    return {reason: code for reason, code, _ in ERROR_ROW.findall(contract)}


def sources(kind=domain.MilepostError):
    """Yield every error of the service that has a reason."""
    if hasattr(kind, "reason"):
        yield kind
    for child in kind.__subclasses__():
        yield from sources(child)


def test_table_has_every_error_of_the_service(contract):
    """Every reason of the service's tree stands in the table, with the code it is mapped to."""
    for kind in sources():
        code = next(MAPPING[parent] for parent in kind.__mro__ if parent in MAPPING)
        assert table(contract).get(kind.reason) == code.name, kind.reason


@pytest.mark.parametrize("proto", PROTOS)
def test_table_agrees_with_the_protos(contract, proto):
    """Every reason that a comment of the protos promises stands in the table, with its code."""
    text = (ROOT / "protos/milepost/v1" / proto).read_text(encoding="utf-8")
    promised = [
        (reason, code)
        for reasons, code in PROTO_ERROR.findall(text)
        for reason in reasons.split(", ")
    ]
    assert promised
    for reason, code in promised:
        assert table(contract).get(reason) == code, reason


def test_table_is_what_this_client_knows(contract):
    """The Python client has a class for every reason of the table, and for no other."""
    assert table(contract).keys() == BY_REASON.keys()


def test_client_tries_again_what_is_unavailable_and_nothing_else(contract):
    """The client repeats by itself exactly the errors whose code is UNAVAILABLE."""
    for _, code, again in ERROR_ROW.findall(contract):
        assert (again == "yes, by the client") == (code == "UNAVAILABLE")


def test_statuses_are_those_of_the_service(contract):
    """The table of statuses names all of them, and tells which are the end."""
    told = {status: end == "yes" for status, end in STATUS_ROW.findall(contract)}
    assert told == {status.value: status in TERMINAL for status in Status}
