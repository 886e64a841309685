"""Fingerprints and canonical forms, which every later release must be able to compare."""

import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from milepost.domain.api_key import CreateKeyRequest, KeySelection
from milepost.domain.delivery import DeliverySelection
from milepost.domain.fingerprint import canonical, fingerprint
from milepost.domain.operation import CreateRequest, Role
from milepost.domain.selection import Selection

# The fingerprints below were stored by the first release. They never change: a replica of a later
# release finds them in the database when a caller retries.
PLAIN = CreateRequest(function="video.transcode")
FULL = CreateRequest(
    function="video.transcode",
    version="2",
    metadata='{"größe":1}',
    original_request_id="order-7",
    callback_url="https://example.com/hook?token=1",
    callback_events=("operation.completed", "operation.failed"),
    ttl=timedelta(hours=1, microseconds=1),
    retry_after=timedelta(seconds=5),
    max_attempts=0,
    request_id="r-1",
    schedule_time=datetime(2027, 1, 2, tzinfo=UTC),
    priority=0,
    unique_key="nightly",
    refuses_to_join=True,
    initial_backoff=timedelta(seconds=2),
    backoff_multiplier=1.5,
    max_backoff=timedelta(minutes=1),
    queue_timeout=timedelta(minutes=2),
    run_timeout=timedelta(minutes=3),
)
KEY = CreateKeyRequest(
    subject="alice",
    roles=(Role.CALLER, Role.WORKER),
    functions=("video.*",),
    expire_time=datetime(2027, 1, 2, 3, 4, 5, 678901, UTC),
    request_id="r-1",
)
STORED = [
    (PLAIN, "1:93bcb5ddea41eb9c573335c3d899d46cedcc126adb4a5724d8a5618c9a6d2c98"),
    (FULL, "1:8bc5b1e0f1b0c70b293f25a70d4c84cd2780747bd3dfbfaedf0f237ad388c336"),
    (KEY, "1:f40b56f9974e68baca4a07a2b7bbbb22745cdc2fd3d7937d6984fe6505f52292"),
]


def later(request: Any, **added: Any) -> Any:
    """The request of a later release: fields in another order, and one more."""
    fields = reversed(dataclasses.fields(request))
    kind = dataclasses.make_dataclass(
        f"Later{type(request).__name__}",
        [
            ("added", Any, dataclasses.field(default=None)),
            *((field.name, Any, dataclasses.field(default=None)) for field in fields),
        ],
        kw_only=True,
    )
    values = {field.name: getattr(request, field.name) for field in dataclasses.fields(request)}
    return kind(**values, **added)


@pytest.mark.parametrize(("request_", "stored"), STORED, ids=["plain", "full", "key"])
def test_stored_fingerprint_stays_the_same(request_, stored):
    """The fingerprint of a request is still the one that the first release stored."""
    assert request_.fingerprint == stored


@pytest.mark.parametrize("unset", [None, "", (), b"", False], ids=repr)
@pytest.mark.parametrize(("request_", "stored"), STORED, ids=["plain", "full", "key"])
def test_unset_field_of_a_later_release_does_not_count(request_, stored, unset):
    """A later release with another order and one more unset field has the stored fingerprint."""
    assert fingerprint(later(request_)) == stored
    assert fingerprint(later(request_, added=unset)) == stored


@pytest.mark.parametrize("value", ["x", 0, True, ("",), b"\0", timedelta(0)], ids=repr)
@pytest.mark.parametrize(("request_", "stored"), STORED, ids=["plain", "full", "key"])
def test_set_field_of_a_later_release_counts(request_, stored, value):
    """A request that sets the field of the later release differs; zero is a set value."""
    assert fingerprint(later(request_, added=value)) != stored


@pytest.mark.parametrize("request_", [FULL, KEY], ids=["create", "key"])
def test_every_field_counts(request_):
    """A request that omits any one field has another fingerprint."""
    names = [field.name for field in dataclasses.fields(request_)]
    others = {dataclasses.replace(request_, **{name: None}).fingerprint for name in names}
    assert len(others | {request_.fingerprint}) == len(names) + 1


@pytest.mark.parametrize(
    ("smallest", "required"),
    [
        (PLAIN, {"function": "video.transcode"}),
        (CreateKeyRequest(subject="", roles=()), {}),
        (Selection(), {}),
        (DeliverySelection(), {}),
        (KeySelection(), {}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_optional_fields_are_unset_by_default(smallest, required):
    """A new optional field is unset by default, so that older requests keep their fingerprint."""
    assert canonical(smallest) == canonical(later(smallest)) == b"1:" + _json(required)


def _json(fields: dict[str, str]) -> bytes:
    return ("{" + ",".join(f'"{name}":"{text}"' for name, text in fields.items()) + "}").encode()


@dataclass
class Sample:
    """One field of any type."""

    value: Any


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ('größe "1"\n', b'"gr\\u00f6\\u00dfe \\"1\\"\\n"'),
        (Role.CALLER, b'"CALLER"'),
        (7, b"7"),
        (True, b"true"),
        (("b", "", "a"), b'["b","","a"]'),
        (b"\x00\xff", b'{"$bytes":"00ff"}'),
        (1.5, b'{"$float":"0x1.8000000000000p+0"}'),
        (timedelta(days=1, microseconds=-1), b'{"$duration_us":86399999999}'),
        (datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC), b'{"$time_us":1000000}'),
        (Sample(value="x"), b'{"value":"x"}'),
    ],
    ids=lambda value: type(value).__name__,
)
def test_every_type_has_one_form(value, form):
    """Text, numbers, flags, lists, bytes, durations and times each have one form."""
    assert canonical(Sample(value=value)) == b'1:{"value":' + form + b"}"


def test_value_without_a_form_is_refused():
    """A type without a defined form is an error, as its text may change between releases."""
    with pytest.raises(TypeError, match="complex"):
        canonical(Sample(value=0.5j))
