"""Canonical forms and fingerprints of requests: what is stored now and compared by later releases.

Only the fields that are set count, by name: a later release may add an optional field or reorder
the fields, and the fingerprint of an older request stays the same. A field is unset when it is
None, False or empty. So a new field must be unset by default, and a field is never renamed. A
change of the form itself takes a new version.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from collections.abc import Sized
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

VERSION: Final = "1"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_encode: Final = json.JSONEncoder(
    ensure_ascii=True, allow_nan=False, sort_keys=True, separators=(",", ":")
).encode


def fingerprint(request: DataclassInstance) -> str:
    """Return the version and a digest that is equal for requests with equal set fields."""
    return f"{VERSION}:{hashlib.sha256(canonical(request)).hexdigest()}"


def canonical(value: Any) -> bytes:
    """Return the canonical form: the version, a colon, and JSON in ASCII with sorted names.

    A dataclass becomes an object of its set fields and a tuple a list. Durations and times are
    whole microseconds, and bytes and floats are hexadecimal digits, each in an object that names
    the type.

    Raises:
        TypeError: the value has a type without a defined form.
    """
    return f"{VERSION}:{_encode(_form(value))}".encode("ascii")


def _form(value: Any) -> Any:
    if isinstance(value, str | int):
        return value
    if isinstance(value, tuple):
        return [_form(item) for item in value]
    if isinstance(value, timedelta):
        return {"$duration_us": value // _MICROSECOND}
    if isinstance(value, datetime):
        return {"$time_us": (value - _EPOCH) // _MICROSECOND}
    if isinstance(value, bytes | float):
        return {"$bytes" if isinstance(value, bytes) else "$float": value.hex()}
    if hasattr(value, "__dataclass_fields__"):
        return _set_fields(value)
    message = f"no canonical form of {type(value).__name__}"
    raise TypeError(message)


def _set_fields(value: DataclassInstance) -> dict[str, Any]:
    fields = [(name, getattr(value, name)) for name in _names(type(value))]
    return {name: _form(field) for name, field in fields if field or _is_set(field)}


def _is_set(falsy: Any) -> bool:
    """Return whether a false value counts: zero does, while an empty text counts as unset."""
    return not (falsy is None or falsy is False or isinstance(falsy, Sized))


@functools.cache
def _names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(kind))
