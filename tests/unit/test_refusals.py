"""The size of refusals: whatever a caller sends, a proxy passes the refusal on."""

import base64
from datetime import timedelta
from urllib.parse import quote

import grpc
import pytest
from google.rpc import error_details_pb2
from hypothesis import given
from hypothesis import strategies as st

from milepost.api.errors import status_of
from milepost.api.refusals import MAX_BYTES, Refusal, shortened, wire_bytes
from milepost.domain import errors
from milepost.domain.errors import InvalidRequest, MilepostError, Violation
from tests.unit.error_samples import samples

WORST = "\U0001f600" * 2_000
"""Twelve bytes of a sentence each, and six of the details."""
texts = st.text(st.characters(codec="utf-8"), max_size=3_000) | st.sampled_from(
    [WORST, "%" * 5_000, "a" * 5_000, "\n" * 5_000]
)
violations = st.builds(Violation, field=texts, problem=texts)
raised = st.one_of(
    st.builds(
        lambda found, omitted: InvalidRequest(*found, omitted=omitted),
        st.lists(violations, min_size=1, max_size=60),
        st.integers(0, 10**9),
    ),
    st.builds(errors.ProgressDecrease, current=st.floats(), requested=st.floats()),
    st.builds(errors.PermissionDenied, role=texts, function=texts),
    st.builds(errors.OperationNotFound, texts),
    st.builds(errors.OperationDeleted, texts, request_id=texts),
    st.builds(errors.DeliveryNotFound, texts),
    st.builds(errors.ApiKeyNotFound, texts),
    st.builds(
        errors.IllegalTransition,
        transition=texts,
        status=texts,
        allowed=st.lists(texts, max_size=9).map(tuple),
    ),
    st.builds(errors.RevisionMismatch, expected=st.integers(), actual=st.integers()),
    st.builds(errors.LostRace, texts, tries=st.integers()),
    st.builds(errors.RequestIdReused, texts),
    st.builds(
        errors.RateLimited,
        limit=texts,
        count=st.integers(),
        period=st.timedeltas(),
        retry_after=st.timedeltas(timedelta(), timedelta(days=9_999)),
    ),
    st.builds(errors.QuotaExceeded, active=st.integers(), quota=st.integers()),
)


def sent(status) -> int:
    """Return the bytes of the two large headers, as gRPC writes them."""
    sentence = quote(status.message, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))
    return len(sentence) + len(base64.b64encode(status.SerializeToString()))


def info_of(status) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo of a status."""
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    return info


def violations_of(status) -> list[Violation]:
    """Return the violations in a status."""
    found = error_details_pb2.BadRequest()
    assert status.details[-1].Unpack(found)
    return [Violation(each.field, each.description) for each in found.field_violations]


@given(raised)
def test_every_refusal_is_bounded(error: MilepostError):
    """Every error has a status that fits, with its reason, whatever its facts are."""
    status = status_of(error)
    assert sent(status) < wire_bytes(status) <= MAX_BYTES
    info = info_of(status)
    assert (info.reason, info.domain) == (error.reason, "milepost")
    assert info.metadata.keys() == error.facts.keys()


@samples
def test_ordinary_refusals_are_whole(error):
    """A refusal that fits says all that its error says."""
    status = status_of(error)
    assert wire_bytes(status) < MAX_BYTES / 2
    assert status.message == str(error)
    assert dict(info_of(status).metadata) == dict(error.facts)


@pytest.mark.parametrize("count", [1, 5, 30, 60, 1_000])
def test_violations_are_cut_with_a_count(count):
    """The first violations are reported as they are, and the number of all others."""
    given = [Violation(f"errors[{n}].code", "must not be blank") for n in range(count)]
    status = status_of(InvalidRequest(*given, omitted=7))
    *kept, rest = violations_of(status)
    assert kept == given[: len(kept)]
    assert len(kept) >= min(count, 15)
    assert rest == Violation("request", f"has {count - len(kept) + 7} more violations")
    assert status.message.endswith(f"; request: has {count - len(kept) + 7} more violations")


def test_texts_are_shortened_where_violations_do_not_fit():
    """A violation that is too large by itself is shortened, and says so."""
    status = status_of(InvalidRequest(Violation("metadata", WORST), Violation("ttl", "is odd")))
    first, *_ = violations_of(status)
    assert first.field == "metadata"
    assert first.problem.startswith("\U0001f600")
    assert first.problem.endswith("...")


def test_facts_are_shortened_where_they_do_not_fit():
    """A fact that is too large is shortened; the others stay whole."""
    status = status_of(errors.PermissionDenied(role="WORKER", function="\u738b" * 255))
    facts = info_of(status).metadata
    assert facts["role"] == "WORKER"
    assert facts["function"].startswith("\u738b" * 50)
    assert facts["function"].endswith("...")


@given(texts, st.integers(3, 1_000))
def test_shortened_text_is_its_beginning(text, max_bytes):
    """A shortened text is a text, or its beginning and an ellipsis, within its size."""
    cut = shortened(text, max_bytes)
    assert cut == text or text.startswith(cut.removesuffix("..."))
    assert len(quote(cut, safe="".join(map(chr, range(0x20, 0x7F))).replace("%", ""))) <= max_bytes


def test_defect_is_a_refusal_of_the_service():
    """A defect has a reason, too, so that clients tell it from a broken connection."""
    facts = {"trace_id": "0" * 32}
    status = Refusal(
        code=grpc.StatusCode.INTERNAL, reason="INTERNAL", message="", facts=facts
    ).status()
    assert info_of(status).reason == "INTERNAL"
