"""Messages of a progress stream become updates by two ways, which must not differ."""

from contextlib import suppress
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from milepost.domain.errors import InvalidRequest
from milepost.domain.limits import Limits
from milepost.domain.operation import new_operation_id
from milepost.gen.milepost.v1 import worker_service_pb2 as pb
from milepost.rpc.streams import _checked, _ordinary

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
def test_short_way_is_the_long_way(id_: str, fields: dict[str, Any]) -> None:
    """What the short way takes the long way takes too, and makes the same of it."""
    request = pb.StreamProgressRequest(operation_id=id_, **fields)
    checked = None
    with suppress(InvalidRequest):
        checked = _checked(request, LIMITS)
    assert _ordinary(request, LIMITS) in {None, checked}


def test_ordinary_message_goes_the_short_way() -> None:
    """A message with everything in it, as workers send it, needs no second look."""
    request = pb.StreamProgressRequest(
        operation_id=new_operation_id(), attempt=1, progress=0.5, message="half"
    )
    assert _ordinary(request, LIMITS) == _checked(request, LIMITS)
