"""Messages of progress streams: taken apart, and converted to updates."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from milepost.api.progress_updates import (
    MAX_UPDATES,
    _checked,
    _ordinary,
    separated,
    update_from,
)
from milepost.domain.errors import InvalidRequest
from milepost.domain.limits import Limits
from milepost.domain.operation import new_operation_id
from milepost.gen.milepost.v1 import worker_service_pb2 as pb

LIMITS = Limits(message_length=5)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "attempt": st.integers(-1, 3),
        "progress": st.floats() | st.sampled_from([0.0, -0.0, 0.5, 1.0]),
        "message": st.text("a\0\n", max_size=7),
    },
)
IDS = st.builds(new_operation_id) | st.sampled_from(["", "op_", "op_" + 24 * "F", 30 * "x"])


@given(id_=IDS, fields=FIELDS)
@example(id_="op_" + 24 * "0", fields={"progress": 1.0, "message": ""})
def test_fast_conversion_agrees_with_the_general_one(id_: str, fields: dict[str, Any]) -> None:
    """The general conversion returns the same update for every message of the fast one."""
    for kind in (pb.StreamProgressRequest, pb.ProgressUpdate):
        request = kind(operation_id=id_, **fields)
        checked = None
        with suppress(InvalidRequest):
            checked = _checked(request, LIMITS)
        assert _ordinary(request, LIMITS) in {None, checked}


def test_ordinary_message_is_converted_fast() -> None:
    """A message with every field set needs no general conversion."""
    request = pb.StreamProgressRequest(
        operation_id=new_operation_id(), attempt=1, progress=0.5, message="half"
    )
    assert _ordinary(request, LIMITS) == _checked(request, LIMITS)


def test_update_means_the_same_in_both_places() -> None:
    """An element of `updates` has the fields of a request with one update."""
    request, update = pb.StreamProgressRequest.DESCRIPTOR, pb.ProgressUpdate.DESCRIPTOR
    own = {field.name: field.number for field in request.fields if field.name != "updates"}
    assert {field.name: field.number for field in update.fields} == own


async def taken_apart(*requests: Any) -> list[Any]:
    """Return the messages that a stream hands on."""

    async def messages() -> AsyncIterator[Any]:
        for request in requests:
            yield request

    return [message async for message in separated(messages())]


async def test_updates_of_a_request_are_taken_one_by_one() -> None:
    """Every update of a request is handed on by itself, in order; other requests as they are."""
    single = pb.StreamProgressRequest(operation_id="single")
    updates = [pb.ProgressUpdate(operation_id=str(n)) for n in range(MAX_UPDATES)]
    batch = pb.StreamProgressRequest(updates=updates)
    assert await taken_apart(single, batch, b"?") == [single, *updates, b"?"]


@pytest.mark.parametrize(
    ("request_", "problem"),
    [
        (pb.StreamProgressRequest(updates=[pb.ProgressUpdate()] * (MAX_UPDATES + 1)), "1001"),
        (pb.StreamProgressRequest(operation_id="x", updates=[pb.ProgressUpdate()]), "empty"),
        (pb.StreamProgressRequest(progress=0.0, updates=[pb.ProgressUpdate()]), "empty"),
    ],
    ids=["too many", "with an id", "with progress"],
)
async def test_request_that_breaks_the_rules_of_updates_is_refused_as_a_whole(
    request_: pb.StreamProgressRequest, problem: str
) -> None:
    """Too many updates, or updates beside another field, are one refusal."""
    (message,) = await taken_apart(request_)
    with pytest.raises(InvalidRequest) as refused:
        update_from(message, LIMITS)
    (violation,) = refused.value.violations
    assert violation.field == "updates"
    assert problem in violation.problem
