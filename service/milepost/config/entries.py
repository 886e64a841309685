"""What check-config shows: every setting with its origin, and variables that are none."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from milepost.config.environment import (
    FILE_VARIABLE,
    OTHERS,
    PREFIX,
    TESTS,
    environment_values,
    file_values,
    variable_of,
)
from milepost.config.redaction import shown
from milepost.config.settings import Settings

Source: TypeAlias = Literal["environment", "file", "default"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One setting as it is in force, fit to be shown: secrets are masked."""

    name: str
    value: Any
    source: Source
    description: str


def entries(settings: Settings | None) -> list[Entry]:
    """Return every setting with its value and where it comes from.

    Without `settings`, because there are problems, values that were given are shown as given.
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
                value=shown(name, value),
                source=source,
                description=field.description or "",
            )
        )
    return found


def unknown_variables() -> list[str]:
    """Return one line for every variable that looks like a setting and is none."""
    known = {variable_of(name) for name in Settings.model_fields}
    around = {name for name in environment_values() if name.startswith(PREFIX)}
    strange = {name for name in around - known - OTHERS if not name.startswith(TESTS)}
    in_file = set(file_values()) - known
    return [
        *(f"{name} is no setting{_hint(name, known)}" for name in sorted(strange)),
        *(
            f"{name} in {FILE_VARIABLE} is no setting{_hint(name, known)}"
            for name in sorted(in_file)
        ),
    ]


def _hint(variable: str, known: set[str]) -> str:
    near = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
