"""The fast and the general conversion of stream messages to updates must agree."""

from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from milepost.api.streams import _checked, _ordinary
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
    request = pb.StreamProgressRequest(operation_id=id_, **fields)
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
