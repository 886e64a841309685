"""The settings with their origins, and warnings about them."""

from __future__ import annotations

import difflib
import re
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from milepost.config.client import API_KEY
from milepost.config.environment import (
    CLIENT,
    FILE_VARIABLE,
    PREFIX,
    TESTS,
    environment_values,
    file_values,
    settings_file,
    variable_of,
)
from milepost.config.opentelemetry import OTEL, otel_values
from milepost.config.redaction import SECRET, mask, redacted
from milepost.config.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME: Final = re.compile(rf"{PREFIX}[A-Z0-9_]{{1,64}}")
"""A name with the prefix. What else a file has before a = may be a part of a secret."""
SECRET_VARIABLES: Final = frozenset({API_KEY, *map(variable_of, SECRET)})
_KUBERNETES: Final = re.compile(
    rf"{PREFIX}(?:PORT(?:_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)?|SERVICE_(?:HOST|PORT\w*))"
)
"""Variables that Kubernetes sets in every pod beside a service named milepost."""
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


def client_entries() -> list[Entry]:
    """Return every variable of the command line as a client, with its value and its source."""
    environment, file = environment_values(), file_values()
    found = []
    for variable, description in CLIENT.items():
        given = environment.get(variable) or file.get(variable)
        from_file = given and not environment.get(variable)
        source: Source = "file" if from_file else "environment" if given else "default"
        value = "***" if given and variable in SECRET_VARIABLES else given
        entry = Entry(name=variable, value=value, source=source, description=description)
        found.append(entry)
    return found


def otel_entries() -> list[Entry]:
    """Return the standard variables of OpenTelemetry that are set."""
    return [
        Entry(name=name, value=value, source="environment", description=OTEL[name])
        for name, value in otel_values().items()
    ]


def warnings() -> list[str]:
    """Return one line for every variable that matches no setting, and for exposed secrets."""
    known = {variable_of(name) for name in Settings.model_fields} | set(CLIENT)
    prefixed = {name for name in environment_values() if name.startswith(PREFIX)}
    unknown = {name for name in prefixed - known - {FILE_VARIABLE} if not _is_foreign(name)}
    in_file = set(file_values()) - known
    names = {name for name in in_file if _NAME.fullmatch(name)}
    return [
        *(f"{name} is not a setting{_hint(name, known)}" for name in sorted(unknown)),
        *(
            f"{name} in {FILE_VARIABLE} is not a setting{_hint(name, known)}"
            for name in sorted(names)
        ),
        *([f"{FILE_VARIABLE} has lines that do not name a setting"] if names < in_file else []),
        *exposed_secrets(),
    ]


def exposed_secrets(*names: str) -> list[str]:
    """Return a line if the settings file has secrets and every user can read it.

    With `names`, only these variables count as secrets.
    """
    file, _ = settings_file()
    if file is None or not file.stat().st_mode & stat.S_IROTH:
        return []
    values = file_values()
    found = [name for name in names or sorted(SECRET_VARIABLES) if _is_secret(name, values)]
    if not found:
        return []
    return [f"{file} has {', '.join(found)} and every user can read it: chmod o-r {file}"]


def _is_secret(variable: str, values: Mapping[str, str | None]) -> bool:
    """Return whether the variable holds a secret; a URL does with a password only."""
    value = values.get(variable)
    return bool(value) and ("://" not in str(value) or mask(str(value)) != value)


def _is_foreign(variable: str) -> bool:
    """Return whether the test suite, or Kubernetes for a service named milepost, sets it."""
    return variable.startswith(TESTS) or _KUBERNETES.fullmatch(variable) is not None


def _hint(variable: str, known: set[str]) -> str:
    near = difflib.get_close_matches(variable, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
