"""The scripted service of the client's tests does as it is told."""

from tests.unit.client_script import ID, got, talking


async def test_script_is_followed_in_order_and_remembered():
    """The scripted service answers as told, in order, and keeps what it was asked."""
    async with talking(got("PENDING"), got("COMPLETED")) as (milepost, service):
        statuses = [(await milepost.get(ID)).status for _ in range(2)]
    assert statuses == ["PENDING", "COMPLETED"]
    assert service.methods == ["GetOperation", "GetOperation"]
    assert service.requests[0].operation_id == ID
