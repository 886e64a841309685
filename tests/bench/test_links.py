"""Authentication and limits are cheap beside the call that they stand around."""

from tests.bench.links import BUDGET_US, measure


async def test_links_keep_their_budget():
    """Together they cost less than a tenth of an empty call, while limits are in the process."""
    local, shared = (await measure(2_000)).values()
    assert 0 < local < BUDGET_US
    assert shared > local
