"""Errors of things that the caller cannot have, because they do not exist for it."""

from __future__ import annotations

from milepost.domain.errors.root import MilepostError


class OperationNotFound(MilepostError):
    """An operation that the caller cannot read: unknown, foreign, expired or deleted."""

    reason = "OPERATION_NOT_FOUND"
    stated = ("operation_id",)

    def __init__(self, operation_id: str) -> None:
        """Report the requested id."""
        self.operation_id = operation_id
        super().__init__(self._sentence(operation_id))

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} does not exist"


class OperationExpired(OperationNotFound):
    """An operation of the caller that has expired."""

    reason = "OPERATION_EXPIRED"

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} has expired"


class OperationDeleted(OperationNotFound):
    """An operation of the caller that was deleted."""

    reason = "OPERATION_DELETED"

    def __init__(self, operation_id: str, *, request_id: str | None) -> None:
        """Report the id. Keep the `request_id` of the delete, which identifies its repetition."""
        super().__init__(operation_id)
        self.request_id = request_id

    @staticmethod
    def _sentence(operation_id: str) -> str:
        return f"operation {operation_id} was deleted"


class DeliveryNotFound(MilepostError):
    """A delivery that the caller cannot read: unknown, foreign or purged."""

    reason = "DELIVERY_NOT_FOUND"
    stated = ("delivery_id",)

    def __init__(self, delivery_id: str) -> None:
        """Report the requested id."""
        self.delivery_id = delivery_id
        super().__init__(f"delivery {delivery_id} does not exist")


class SigningSecretNotFound(MilepostError):
    """A caller without a signing secret: it has neither a callback URL nor rotated."""

    reason = "SIGNING_SECRET_NOT_FOUND"

    def __init__(self) -> None:
        """Report the two ways to create a secret."""
        super().__init__(
            "no signing secret exists yet: create an operation with callback_url, or rotate"
        )


class ApiKeyNotFound(MilepostError):
    """An unknown API key. Only admins can request one."""

    reason = "API_KEY_NOT_FOUND"
    stated = ("key_id",)

    def __init__(self, key_id: str) -> None:
        """Report the requested id."""
        self.key_id = key_id
        super().__init__(f"API key {key_id} does not exist")
