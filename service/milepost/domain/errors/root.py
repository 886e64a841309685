"""The root of the errors of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class MilepostError(Exception):
    """The root of the tree. Only its subclasses are raised."""

    reason: ClassVar[str]
    stated: ClassVar[tuple[str, ...]] = ()
    """The fields that the message is built from."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Every dynamic part of the message, by name."""
        return {name: str(getattr(self, name)) for name in self.stated}
