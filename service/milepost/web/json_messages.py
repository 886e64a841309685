"""Messages as JSON, by the mapping of proto3 (protobuf.dev/programming-guides/json).

The functions of protobuf refuse an Any of a type that this process does not know, and results are
of any type. Such a value is `{"@type": …, "value": base64}` here, in both directions.
"""

from __future__ import annotations

import base64
import functools
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import orjson
from google.protobuf import any_pb2, descriptor_pool, duration_pb2, json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError

from milepost.domain.errors import InvalidRequest, Violation
from milepost.web.json_problems import REFUSALS, violation_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from google.protobuf.descriptor import Descriptor
    from google.protobuf.message import Message

    Encode = Callable[[Any], Any]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICRO: Final = 1_000
_CACHED: Final = 4_096
"""Texts of times, and of durations, that are kept."""
_URL_SAFE: Final = str.maketrans("-_", "+/")


def to_json(message: Message) -> bytes:
    """Return a message as JSON text in UTF-8."""
    return orjson.dumps(to_plain(message))


def to_plain(message: Message) -> Any:
    """Return a message as the values of JSON."""
    return _encoder(message.DESCRIPTOR)(message)


def from_plain(plain: Mapping[str, Any], message: Message) -> None:
    """Fill the empty `message` with the values of a JSON object.

    Raises:
        InvalidRequest: a field is unknown or has a value of another type.
    """
    rest = dict(plain)
    for field in message.DESCRIPTOR.fields:
        if field.message_type is not None and field.message_type.full_name == _ANY:
            for name in {field.name, field.json_name} & rest.keys():
                _fill_any(getattr(message, field.name), rest.pop(name), name)
    try:
        json_format.ParseDict(rest, message)
    except REFUSALS:
        raise InvalidRequest(violation_of(rest, type(message))) from None


def _fill_any(message: any_pb2.Any, plain: Any, name: str) -> None:
    if plain is None:
        return
    type_url = plain.get("@type") if isinstance(plain, dict) else None
    if not isinstance(type_url, str):
        raise InvalidRequest(Violation(name, 'must be an object with "@type"'))
    message.SetInParent()
    known = _known_type(type_url)
    try:
        if known is None:
            message.type_url, message.value = type_url, _packed(plain)
        else:
            json_format.ParseDict(plain, message)
    except REFUSALS:
        form = _UNKNOWN if known is None else f"must be a {known} as JSON"
        raise InvalidRequest(Violation(name, form)) from None


def _known_type(type_url: str) -> str | None:
    """Return the name of the type if this process has its descriptor."""
    name = type_url.rpartition("/")[2]
    try:
        descriptor_pool.Default().FindMessageTypeByName(name)
    except KeyError:
        return None
    return name


def _packed(plain: Mapping[str, Any]) -> bytes:
    """Return the bytes of a message of unknown type, from base64 of either alphabet."""
    text = plain.get("value")
    if plain.keys() != {"@type", "value"} or not isinstance(text, str):
        raise ValueError(_UNKNOWN)
    padding = "=" * (-len(text) % 4)
    return base64.b64decode(text.translate(_URL_SAFE) + padding, validate=True)


_UNKNOWN: Final = (
    'is of a type that the service does not know: it must have "@type" and "value", which must be'
    " base64"
)


@functools.cache
def _encoder(descriptor: Descriptor) -> Encode:
    """Return the function that makes the JSON value of a message of this type."""
    if descriptor.full_name in _WELL_KNOWN:
        return _WELL_KNOWN[descriptor.full_name]
    fields = {field.name: (field.json_name, _of_field(field)) for field in descriptor.fields}

    def encode(message: Message) -> dict[str, Any]:
        found = {}
        for field, value in message.ListFields():
            name, encode_field = fields[field.name]
            found[name] = encode_field(value)
        return found

    return encode


def _of_field(field: FieldDescriptor) -> Encode:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        of_value = _of_single(field.message_type.fields_by_name["value"])
        return lambda value: {str(key): of_value(item) for key, item in value.items()}
    of_item = _of_single(field)
    return (lambda value: [of_item(item) for item in value]) if field.is_repeated else of_item


def _of_single(field: FieldDescriptor) -> Encode:
    if field.message_type is not None:
        # Later, because messages may contain themselves.
        message_type = field.message_type
        return lambda value: _encoder(message_type)(value)  # noqa: PLW0108
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    return _SCALARS.get(field.cpp_type if field.type != field.TYPE_BYTES else _BYTES, _same)


def _same(value: Any) -> Any:
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


_BYTES: Final = -1
_SCALARS: Final[dict[int, Encode]] = {
    FieldDescriptor.CPPTYPE_INT64: str,
    FieldDescriptor.CPPTYPE_UINT64: str,
    FieldDescriptor.CPPTYPE_DOUBLE: _number,
    FieldDescriptor.CPPTYPE_FLOAT: _number,
    _BYTES: _base64,
}


def _timestamp(message: Any) -> str:
    micros = message.nanos // _MICRO
    fraction = f".{micros:06}" if micros else ""
    return f"{_second(message.seconds)}{fraction}Z"


@functools.lru_cache(maxsize=_CACHED)
def _second(seconds: int) -> str:
    """Return the text of a second. Times of one operation, and of many, share a few."""
    return (_EPOCH + timedelta(seconds=seconds)).isoformat().removesuffix("+00:00")


def _duration(message: Any) -> str:
    return _span(message.seconds, message.nanos)


@functools.lru_cache(maxsize=_CACHED)
def _span(seconds: int, nanos: int) -> str:
    """Return the text of a duration. Most operations have those of the defaults."""
    return str(duration_pb2.Duration(seconds=seconds, nanos=nanos).ToJsonString())


def _struct(message: Any) -> dict[str, Any]:
    return {name: _value(item) for name, item in message.fields.items()}


def _list(message: Any) -> list[Any]:
    return [_value(item) for item in message.values]


def _value(message: Any) -> Any:
    kind = message.WhichOneof("kind")
    if kind in (None, "null_value"):
        return None
    value = getattr(message, kind)
    if kind == "number_value":
        return int(value) if value.is_integer() and abs(value) < _EXACT else _number(value)
    return (
        _struct(value)
        if kind == "struct_value"
        else _list(value)
        if kind == "list_value"
        else value
    )


_EXACT: Final = 2.0**53


def _any(message: any_pb2.Any) -> dict[str, Any]:
    """Return the packed message, or its bytes if its type is not known or its bytes are broken."""
    try:
        return dict(json_format.MessageToDict(message))
    except (TypeError, ValueError, DecodeError, json_format.Error, RecursionError):
        return {"@type": message.type_url, "value": _base64(message.value)}


_ANY: Final = "google.protobuf.Any"
_WELL_KNOWN: Final[dict[str, Encode]] = {
    _ANY: _any,
    "google.protobuf.Timestamp": _timestamp,
    "google.protobuf.Duration": _duration,
    "google.protobuf.Struct": _struct,
    "google.protobuf.ListValue": _list,
    "google.protobuf.Value": _value,
}
