"""Problems of JSON that does not fit a message: which field, and what is expected of it.

The texts of protobuf quote the value, which may be a payload, or a secret in the wrong place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message_factory import GetMessageClass

from milepost.access.audit import REDACTED_CHARACTERS
from milepost.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

REFUSALS: Final = (
    json_format.ParseError,
    AttributeError,
    KeyError,
    OverflowError,
    RecursionError,
    TypeError,
    ValueError,
)
"""Exceptions of protobuf for JSON that does not fit a message."""

_WELL_KNOWN: Final = {
    "google.protobuf.Duration": 'a duration, such as "30s"',
    "google.protobuf.Timestamp": 'a time, such as "2026-01-31T12:00:00Z"',
    "google.protobuf.Struct": "an object, with finite numbers and not nested too deeply",
}
_SCALARS: Final = {
    FieldDescriptor.CPPTYPE_STRING: "a text",
    FieldDescriptor.CPPTYPE_BOOL: "true or false",
    FieldDescriptor.CPPTYPE_DOUBLE: "a number",
    FieldDescriptor.CPPTYPE_INT32: "a whole number of 32 bits",
    FieldDescriptor.CPPTYPE_INT64: "a whole number of 64 bits",
    FieldDescriptor.CPPTYPE_MESSAGE: "an object",
}


def violation_of(plain: Mapping[str, Any], message_type: type[Message]) -> Violation:
    """Return the first violation of a JSON object that does not fit a type of message."""
    found = _first(plain, message_type.DESCRIPTOR, "")
    return found or Violation("request", "must give each field once")


def shown(name: str) -> str:
    """Return the name of an unknown field or parameter; of a long one only the beginning."""
    kept = name[:REDACTED_CHARACTERS]
    return name if kept == name else f"{kept}…"


def _first(plain: Mapping[str, Any], descriptor: Any, path: str) -> Violation | None:
    fields = {name: each for each in descriptor.fields for name in (each.name, each.json_name)}
    for name, value in plain.items():
        if name not in fields:
            return Violation(path.rstrip(".") or "request", f"has no field {shown(name)}")
        if not _fits({name: value}, descriptor):
            found = _inside(value, fields[name], path + name)
            return found or Violation(path + name, _form(fields[name]))
    return None


def _fits(plain: dict[str, Any], descriptor: Descriptor) -> bool:
    try:
        json_format.ParseDict(plain, GetMessageClass(descriptor)())
    except REFUSALS:
        return False
    return True


def _inside(value: Any, field: FieldDescriptor, path: str) -> Violation | None:
    """Return the violation of a field of a message in this field, if that is where it is."""
    if field.message_type is None or field.message_type.full_name in _WELL_KNOWN:
        return None
    items: Iterable[Any] = value if isinstance(value, list) else [value]
    for n, item in enumerate(items):
        place = f"{path}[{n}]" if field.is_repeated else path
        if isinstance(item, dict) and (found := _first(item, field.message_type, f"{place}.")):
            return found
    return None


def _form(field: FieldDescriptor) -> str:
    """Return what the value of a field must be."""
    if field.enum_type is not None:
        form = "one of " + ", ".join(value.name for value in field.enum_type.values)
    elif field.message_type is not None and field.message_type.full_name in _WELL_KNOWN:
        form = _WELL_KNOWN[field.message_type.full_name]
    else:
        form = _SCALARS[field.cpp_type]
    return f"must be a list; each item is {form}" if field.is_repeated else f"must be {form}"
