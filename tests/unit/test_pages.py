"""Pages of lists: bounded in items and in bytes."""

import secrets

import pytest

from milepost.domain.api_key import CreateKeyRequest, KeySelection
from milepost.domain.delivery import DeliverySelection
from milepost.domain.limits import Limits
from milepost.domain.operation import Principal, Role
from milepost.domain.pages import page_of
from milepost.domain.transitions import Transition
from milepost.storage.batchers import Batchers
from milepost.storage.engine import open_engine
from milepost.storage.stores import Stores
from milepost.tracking.keys import Keys
from milepost.tracking.page_tokens import PageTokens
from milepost.tracking.signing_secrets import Secrets
from milepost.tracking.webhooks import Webhooks
from tests import factories

ROOT = Principal(subject=factories.OWNER, roles=frozenset({Role.ADMIN}), credential_id="r")
LIMITS = Limits(answer_bytes=10_000)
TOKENS = PageTokens(secrets.token_bytes(32))


@pytest.fixture
async def stores(sqlite_url):
    """The stores of a fresh database."""
    batchers = Batchers(open_engine(sqlite_url))
    yield Stores(batchers)
    await batchers.close()


@pytest.mark.parametrize(
    ("found", "items", "is_last"),
    [
        ([], [], True),
        ([9], [9], True),
        ([9, 1], [9], False),
        ([2, 2, 1], [2, 2, 1], True),
        ([2, 2, 2], [2, 2], False),
        ([1, 1, 1, 1], [1, 1, 1], False),
        ([5, 0, 0], [5, 0, 0], True),
    ],
)
def test_page_has_the_items_that_fit(found, items, is_last):
    """A page of up to 3 items and 5 bytes has the first items that fit, and at least one."""
    page = page_of(found, 3, max_bytes=5, size=lambda item: item)
    assert (page.items, page.is_last) == (items, is_last)


async def pages(of, selection, size):
    """Return the pages of a list."""
    found, token = [], ""
    while True:
        page, token = await of.list(ROOT, selection, page_size=size, page_token=token)
        found.append(page)
        if not token:
            return found


async def test_pages_of_keys_take_what_fits(stores):
    """Keys with many grants are spread over more pages, and each is on one of them."""
    keys = Keys(stores.keys, limits=LIMITS, page_tokens=TOKENS)
    grants = tuple(f"{n:>0150}" for n in range(4))
    request = CreateKeyRequest(subject="wally", roles=(Role.WORKER,), functions=grants)
    created = [(await keys.create(ROOT, request)).key.key_id for _ in range(7)]
    found = await pages(keys, KeySelection(), 7)
    assert [len(page) for page in found] == [2, 2, 2, 1]
    assert sorted(key.key_id for page in found for key in page) == sorted(created)


async def test_pages_of_deliveries_take_what_fits(stores):
    """Deliveries to long URLs are spread over more pages, and each is on one of them."""
    url = f"https://example.com/{'x' * 700}"
    created = [(await factories.create(stores.operations, callback_url=url)).id for _ in range(5)]
    for operation_id in created:
        change = factories.change(Transition.CANCEL, operation_id)
        await stores.operations.apply(change)
    webhooks = Webhooks(
        stores.deliveries,
        Secrets(stores.secrets, None),
        limits=LIMITS,
        page_tokens=TOKENS,
        callbacks=None,
        prober=None,
    )
    found = await pages(webhooks, DeliverySelection(), 5)
    assert [len(page) for page in found] == [2, 2, 1]
    assert sorted(each.operation_id for page in found for each in page) == sorted(created)
