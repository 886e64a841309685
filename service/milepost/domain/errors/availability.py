"""Errors of the service itself: it is not available, not configured, or broken."""

from __future__ import annotations

from datetime import timedelta
from typing import ClassVar

from milepost.domain.errors.root import MilepostError


class Unavailable(MilepostError):
    """A temporary failure: the same request may succeed after `retry_after`."""

    retry_after: ClassVar = timedelta(seconds=1)


class StoreUnavailable(Unavailable):
    """A database that does not answer in time. A change may or may not be committed."""

    reason = "STORE_UNAVAILABLE"

    def __init__(self) -> None:
        """Omit the cause: only the log describes the database."""
        super().__init__("the store is not available, try again")


class IdentityProviderUnavailable(Unavailable):
    """An issuer of tokens that does not provide its keys. No data was read."""

    reason = "IDENTITY_PROVIDER_UNAVAILABLE"

    def __init__(self) -> None:
        """Omit the issuer and the cause: only the log describes them."""
        super().__init__("the identity provider is not available, try again")


class Overloaded(Unavailable):
    """More waiting calls than the replica accepts."""

    reason = "OVERLOADED"

    def __init__(self) -> None:
        """Ask the caller to retry."""
        super().__init__("too many calls at once, try again")


class Draining(Unavailable):
    """A process that is shutting down and accepts no new calls."""

    reason = "DRAINING"

    def __init__(self) -> None:
        """Ask the caller to retry, on another replica."""
        super().__init__("this replica is stopping, try again")


class WebhooksNotConfigured(MilepostError):
    """A request about webhooks to a service without a master key to sign them with."""

    reason = "WEBHOOKS_NOT_CONFIGURED"

    def __init__(self) -> None:
        """Report the alternative."""
        super().__init__("this service sends no webhooks: create without callback_url and poll")


class IdsExhausted(MilepostError):
    """Random ids that are all in use: the source of randomness is broken."""

    reason = "IDS_EXHAUSTED"

    def __init__(self, *, tries: int) -> None:
        """Report the number of tries."""
        super().__init__(f"no free operation id after {tries} tries")
