"""The principals of client certificates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milepost.domain.errors import Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from milepost.domain.operation import Principal


class Certificates:
    """Finds the principals of client certificates, which TLS has verified before."""

    def __init__(self, principals: Mapping[str, Principal]) -> None:
        """Trust `principals`, by a name of the certificate, such as ``dns:encoder.example``."""
        self._principals = principals

    def principal(self, names: Collection[str]) -> Principal:
        """Return the principal of the certificate that has these subject alternative names.

        Raises:
            Unauthenticated: the certificate stands for no principal, or for more than one.
        """
        known = [self._principals[name] for name in set(names) if name in self._principals]
        if len(known) != 1:
            raise Unauthenticated
        return known[0]
