"""The tree of errors, and the status of each."""

import inspect
import re

from google.rpc import error_details_pb2
from grpc import StatusCode

from milepost.api.errors import MAPPING, code_of, status_of
from milepost.domain import errors
from milepost.domain.errors import MilepostError
from tests.unit.error_samples import SAMPLES, samples


def tree(kind: type[MilepostError] = MilepostError) -> list[type[MilepostError]]:
    """Return every class of the tree."""
    return [kind, *(found for child in kind.__subclasses__() for found in tree(child))]


RAISED = [kind for kind in tree() if "reason" in vars(kind)]


def test_every_error_has_a_sample():
    """Every error that can be raised has a sample in these tests."""
    sources = {kind for kind in tree() if not kind.__subclasses__()}
    assert {type(error) for error in SAMPLES} == set(RAISED)
    assert sources <= set(RAISED)


def test_drawing_of_the_tree_is_up_to_date():
    """The drawing of the tree has every class under its parent, and no other."""
    parents: dict[int, str] = {}
    drawn = {}
    for line in inspect.getdoc(errors).splitlines():  # type: ignore[union-attr]
        found = re.match(r"( {4}[│├└─ ]*)([A-Z]\w+)", line)
        if found:
            depth = len(found[1])
            parents[depth] = found[2]
            drawn[found[2]] = parents.get(depth - 4)
    assert drawn == {
        kind.__name__: kind.__bases__[0].__name__ if kind is not MilepostError else None
        for kind in tree()
    }


@samples
def test_code_is_that_of_the_specification(error):
    """Every error has the status code of the specification."""
    assert code_of(error) is SAMPLES[error]


def test_mapping_has_no_dead_entry():
    """Every entry of the mapping applies to an error that can be raised."""
    used = {next(kind for kind in error.__mro__ if kind in MAPPING) for error in RAISED}
    assert used == set(MAPPING)


def test_reasons():
    """Every reason is UPPER_SNAKE, at most 63 characters, and names one error."""
    reasons = [kind.reason for kind in RAISED]
    assert len(set(reasons)) == len(reasons)
    for reason in [*reasons, "INTERNAL"]:
        assert re.fullmatch(r"[A-Z][A-Z0-9_]{0,61}[A-Z0-9]", reason)


@samples
def test_status_has_its_details(error):
    """Every status has one ErrorInfo, and the detail for its code."""
    status = status_of(error)
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.domain, info.reason) == ("milepost", error.reason)
    assert dict(info.metadata) == dict(error.facts)
    kinds = [detail.TypeName().rpartition(".")[2] for detail in status.details[1:]]
    expected = {
        StatusCode.INVALID_ARGUMENT: ["BadRequest"],
        StatusCode.UNAVAILABLE: ["RetryInfo"],
    }
    if isinstance(error, errors.LimitReached):
        limited = isinstance(error, errors.RateLimited)
        expected[SAMPLES[error]] = ["RetryInfo"] if limited else ["QuotaFailure"]
    assert kinds == expected.get(SAMPLES[error], [])


@samples
def test_dynamic_parts_of_messages_are_facts(error):
    """Every dynamic part of a message is also a fact, so that no client parses text (AIP-193)."""
    for name, value in error.facts.items():
        assert re.fullmatch(r"[a-z][a-zA-Z0-9_]{1,63}", name)
        for part in value.split(","):
            assert part in str(error)
