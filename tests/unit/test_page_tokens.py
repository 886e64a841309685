"""Page tokens: bound to a position, a subject, a selection and a key."""

import base64
import dataclasses
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from milepost.domain.errors import InvalidRequest
from milepost.domain.operation import Status, new_operation_id
from milepost.domain.selection import Position, Selection
from milepost.tracking.page_tokens import MAX_CHARACTERS, PageTokens

TOKENS = PageTokens(secrets.token_bytes(32))
POSITION = Position(create_time=datetime(2026, 1, 2, 3, 4, 5, 678901, UTC), id=new_operation_id())
SELECTION = Selection(statuses=(Status.PENDING,), function="f", owner="o")
TOKEN = TOKENS.issue(POSITION, subject="alice", selection=SELECTION)


def read(token: str, subject: str = "alice", selection: Selection = SELECTION) -> Position:
    """The position of a token."""
    return TOKENS.read(token, subject=subject, selection=selection)


@given(st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 1)), st.text())  # noqa: DTZ001
def test_token_leads_back(create_time, subject):
    """A token leads to the very position that it was issued for, to the microsecond."""
    position = Position(create_time=create_time, id=new_operation_id())
    token = TOKENS.issue(position, subject=subject, selection=Selection())
    assert TOKENS.read(token, subject=subject, selection=Selection()) == position
    assert len(token) <= MAX_CHARACTERS
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_token_of_somebody_else():
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


def test_token_of_another_key():
    """A token that another key made is refused."""
    other = PageTokens(secrets.token_bytes(32))
    with pytest.raises(InvalidRequest):
        other.read(TOKEN, subject="alice", selection=SELECTION)


def test_every_bit_counts():
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
        TOKEN.ljust(MAX_CHARACTERS, "A"),
        TOKEN.ljust(MAX_CHARACTERS + 1, "A"),
        TOKEN.swapcase(),
        "",
    ],
    ids=range(11),
)
def test_what_is_no_token(token):
    """What is not, to the letter, a token that was issued is refused."""
    with pytest.raises(InvalidRequest):
        read(token)


@given(st.text(max_size=2 * MAX_CHARACTERS))
def test_any_text_can_be_sent(text):
    """Whatever is sent as a token is refused in order."""
    with pytest.raises(InvalidRequest):
        read(text)
