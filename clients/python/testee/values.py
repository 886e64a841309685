"""The JSON of the testee: what JSON cannot hold, and the values of the client, as plain JSON."""

import base64
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from google.protobuf.any_pb2 import Any as Packed
from google.protobuf.struct_pb2 import NULL_VALUE, Value

from milepost_client import MilepostError, Operation, OperationError

DATA: Final = {"metadata", "result", "checkpoint", "details"}
"""The fields whose content is data of the user."""
TIMES: Final = {"schedule_time", "created_from", "created_before"}
LEFT_OUT_EMPTY: Final = ("metadata", "details", "errors")


class Unsupported(Exception):
    """A command, or a value, that this language does not have."""


def decode(value: Any) -> Any:
    """Return the value that the JSON of a command stands for."""
    if isinstance(value, list):
        return list(map(decode, value))
    if not isinstance(value, Mapping):
        return value
    for name, special in SPECIAL.items():
        if name in value:
            return special(value[name])
    return {name: decode(member) for name, member in value.items()}


def _packed(message: Mapping[str, str]) -> Packed:
    return Packed(type_url=message["type_url"], value=base64.b64decode(message["value"]))


def _text(units: Sequence[int]) -> str:
    return b"".join(unit.to_bytes(2, "little") for unit in units).decode(
        "utf-16-le", "surrogatepass"
    )


def _cycle(_: Any) -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


SPECIAL: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$any": _packed,
    "$integer": int,
    "$number": float,
    "$utf16": _text,
    "$cycle": _cycle,
    "$unserialisable": lambda _: object(),
}


def decode_arguments(command: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a command by their names in the Python client."""
    arguments = {name: _argument(name, value) for name, value in command.items()}
    policy: dict[str, Any] = arguments.pop("retry_policy", {})
    return arguments | policy


def decode_result(command: Mapping[str, Any]) -> Any:
    """Return the result of a command, None if it is absent, and a message for a JSON null."""
    return _argument("result", command["result"]) if "result" in command else None


def _argument(name: str, value: Any) -> Any:
    if name == "result" and value is None:
        return Value(null_value=NULL_VALUE)
    if name in TIMES:
        return datetime.fromisoformat(value)
    if name == "unique_key_policy":
        return value.lower()
    if name == "errors":
        return [OperationError(**decode(error)) for error in value]
    return decode(value)


def encode(value: Any) -> Any:
    """Return a value of the client as JSON: durations in seconds, and without absent fields."""
    match value:
        case Operation():
            found = _fields(value)
            has_null = found.pop("has_result") and value.result is None
            return found | {"result": None} if has_null else found
        case timedelta():
            return value.total_seconds()
        case datetime():
            return value.isoformat()
        case list() | tuple():
            return list(map(encode, value))
        case _:
            return _fields(value) if dataclasses.is_dataclass(value) else value


def _fields(value: Any) -> dict[str, Any]:
    found = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return {
        name: encode_data(member) if name in DATA else encode(member)
        for name, member in found.items()
        if member is not None and (member or name not in LEFT_OUT_EMPTY)
    }


def encode_data(value: Any) -> Any:
    """Return data of the user, or the message that holds it."""
    if isinstance(value, Packed):
        content = base64.b64encode(value.value).decode()
        return {"$any": {"type_url": value.type_url, "value": content}}
    return value


def encode_error(problem: Exception) -> dict[str, Any]:
    """Return an error with its class and its facts."""
    if not isinstance(problem, MilepostError):
        kind = type(problem).__name__ if type(problem).__name__ == "NotVerified" else "Error"
        return {"class": kind, "message": str(problem) or repr(problem)}
    retry_after = problem.retry_after
    return {
        "class": type(problem).__name__,
        "reason": problem.reason,
        "code": problem.code.name if problem.code else None,
        "message": str(problem),
        "metadata": problem.metadata,
        "violations": [dataclasses.asdict(violation) for violation in problem.violations],
        "retry_after": None if retry_after is None else retry_after.total_seconds(),
    }
