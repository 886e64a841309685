"""The settings with their origins, and the variables that match no setting, for check-config."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from milepost.config.environment import (
    FILE_VARIABLE,
    OTHERS,
    PREFIX,
    TESTS,
    environment_values,
    file_values,
    variable_of,
)
from milepost.config.redaction import redacted
from milepost.config.settings import Settings

_NAME: Final = re.compile(rf"{PREFIX}[A-Z0-9_]{{1,64}}")
"""A name with the prefix. What else a file has before a = may be a part of a secret."""
Source: TypeAlias = Literal["environment", "file", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One effective setting, safe to print: secrets are masked."""

    name: str
    value: Any
    source: Source
    description: str


def entries(settings: Settings | None) -> list[Entry]:
    """Return every setting with its value and its source.

    Without `settings`, when they are invalid, the configured values are returned as written.
    """
    environment, file = environment_values(), file_values()
    found = []
    for name, field in Settings.model_fields.items():
        variable = variable_of(name)
        source: Source = "default"
        if variable in environment or variable in file:
            source = "environment" if variable in environment else "file"
        value = environment.get(variable, file.get(variable))
        if settings is not None:
            value = getattr(settings, name)
        elif value is None:
            value = field.get_default(call_default_factory=True)
        found.append(
            Entry(
                name=variable,
                value=redacted(name, value),
                source=source,
                description=field.description or "",
            )
        )
    return found


def unknown_variables() -> list[str]:
    """Return one line for every variable with the prefix that matches no setting."""
    known = {variable_of(name) for name in Settings.model_fields}
    prefixed = {name for name in environment_values() if name.startswith(PREFIX)}
    unknown = {name for name in prefixed - known - OTHERS if not name.startswith(TESTS)}
    in_file = set(file_values()) - known
    names = {name for name in in_file if _NAME.fullmatch(name)}
    return [
        *(f"{name} is not a setting{_hint(name, known)}" for name in sorted(unknown)),
        *(
            f"{name} in {FILE_VARIABLE} is not a setting{_hint(name, known)}"
            for name in sorted(names)
        ),
        *([f"{FILE_VARIABLE} has lines that do not name a setting"] if names < in_file else []),
    ]


def _hint(variable: str, known: set[str]) -> str:
    near = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
