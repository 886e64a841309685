"""Page tokens: bound to a position, a subject, a selection and a key."""

import base64
import dataclasses
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.domain.api_key import KeySelection
from milepost.domain.delivery import DeliverySelection
from milepost.domain.errors import InvalidRequest
from milepost.domain.operation import OperationId, Status, new_operation_id
from milepost.domain.selection import Position, Selection
from milepost.tracking.page_tokens import MAX_TOKEN_LENGTH, PageTokens

TOKENS = PageTokens(secrets.token_bytes(32))
POSITION = Position(create_time=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), id=new_operation_id())
SELECTION = Selection(statuses=(Status.PENDING,), function="f", owner="o")
TOKEN = TOKENS.issue(POSITION, subject="alice", selection=SELECTION)

# The tokens below were issued by the first release under this key, for this position and "alice".
# They never change: callers bring them to replicas of a later release.
FIXED_TOKENS = PageTokens(bytes(range(32)))
FIXED_POSITION = Position(
    create_time=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), id=f"op_{'0123456789ab' * 2}"
)
EVERY_FILTER = Selection(
    statuses=(Status.PENDING, Status.FAILED),
    function="f",
    owner="o",
    create_time_from=FIXED_POSITION.create_time,
    create_time_to=FIXED_POSITION.create_time + timedelta(days=1),
)
ISSUED = [
    (Selection(), "aXOKXJKrHgISObpCLvlgDgAGR172V081b3BfMDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFi"),
    (EVERY_FILTER, "OlQCEHXPsnIhb5LMiqCQvgAGR172V081b3BfMDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFi"),
    (
        DeliverySelection(operation_id=OperationId(FIXED_POSITION.id)),
        "4F0kBbfdFMDuIjyIqtDELgAGR172V081b3BfMDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFi",
    ),
    (
        KeySelection(inactive=True),
        "BetS3UqzOdzTu1ZN0TZnuQAGR172V081b3BfMDEyMzQ1Njc4OWFiMDEyMzQ1Njc4OWFi",
    ),
]
LISTS = ["unfiltered", "every filter", "deliveries", "keys"]


def read(token: str, subject: str = "alice", selection: Selection = SELECTION) -> Position:
    """Return the position of a token."""
    return TOKENS.read(token, subject=subject, selection=selection)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 1)), st.text())  # noqa: DTZ001
def test_token_returns_its_position(create_time, subject):
    """A token returns the position that it was issued for, to the microsecond."""
    position = Position(create_time=create_time, id=new_operation_id())
    token = TOKENS.issue(position, subject=subject, selection=Selection())
    assert TOKENS.read(token, subject=subject, selection=Selection()) == position
    assert len(token) <= MAX_TOKEN_LENGTH
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_token_of_another_subject():
    """The token of another subject is refused."""
    with pytest.raises(InvalidRequest) as caught:
        read(TOKEN, subject="bob")
    assert [violation.field for violation in caught.value.violations] == ["page_token"]


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Selection)])
def test_token_of_other_filters(field):
    """A token with any filter changed is refused."""
    others: dict[str, Any] = {
        "statuses": (Status.FAILED,),
        "function": "g",
        "owner": None,
        "create_time_from": POSITION.create_time,
        "create_time_to": POSITION.create_time + timedelta(microseconds=1),
    }
    with pytest.raises(InvalidRequest):
        read(TOKEN, selection=dataclasses.replace(SELECTION, **{field: others[field]}))


def later(selection: Any, added: str | None = None) -> Any:
    """The filters of a later release: in another order, and one more."""
    kind = dataclasses.make_dataclass(
        "Later",
        [
            ("added", Any, None),
            *((field.name, Any, None) for field in reversed(dataclasses.fields(selection))),
        ],
        namespace={"collection": selection.collection},
    )
    return kind(**dataclasses.asdict(selection), added=added)


@pytest.mark.parametrize(("selection", "token"), ISSUED, ids=LISTS)
def test_token_of_an_older_release_is_read(selection, token):
    """A later release with one more unset filter accepts a token of the first release."""
    for same in (selection, later(selection)):
        assert FIXED_TOKENS.read(token, subject="alice", selection=same) == FIXED_POSITION


@pytest.mark.parametrize(("selection", "token"), ISSUED, ids=LISTS)
def test_token_of_an_older_release_is_for_its_filters(selection, token):
    """A later release with its new filter set refuses a token of the first release."""
    with pytest.raises(InvalidRequest):
        FIXED_TOKENS.read(token, subject="alice", selection=later(selection, added="x"))


def test_token_of_another_list():
    """A token of one list is refused by every other list, also without filters."""
    lists = (Selection(), DeliverySelection(), KeySelection())
    tokens = [TOKENS.issue(POSITION, subject="alice", selection=each) for each in lists]
    for place, token in enumerate(tokens):
        for other in (*lists[:place], *lists[place + 1 :]):
            with pytest.raises(InvalidRequest):
                TOKENS.read(token, subject="alice", selection=other)


def test_token_of_another_key():
    """A token that was issued under another key is refused."""
    other = PageTokens(secrets.token_bytes(32))
    with pytest.raises(InvalidRequest):
        other.read(TOKEN, subject="alice", selection=SELECTION)


def test_every_bit_matters():
    """A token with any bit changed is refused."""
    raw = base64.urlsafe_b64decode(TOKEN)
    for place in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises(InvalidRequest):
            read(base64.urlsafe_b64encode(changed).decode())


@pytest.mark.parametrize(
    "token",
    [
        TOKEN + "=",
        TOKEN + "====",
        TOKEN + "\n",
        TOKEN + "!!!!",
        TOKEN[:30] + "\n" + TOKEN[30:],
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN.ljust(MAX_TOKEN_LENGTH, "A"),
        TOKEN.ljust(MAX_TOKEN_LENGTH + 1, "A"),
        TOKEN.swapcase(),
        "",
    ],
    ids=range(11),
)
def test_malformed_token_is_refused(token):
    """A text that differs from an issued token in any character is refused."""
    with pytest.raises(InvalidRequest):
        read(token)


@given(st.text(max_size=2 * MAX_TOKEN_LENGTH))
def test_any_text_can_be_sent(text):
    """Any other text that is sent as a token is refused as an invalid request."""
    with pytest.raises(InvalidRequest):
        read(text)
