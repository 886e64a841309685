"""The headers of a webhook that a scenario signs itself, by the published library."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from standardwebhooks import Webhook


@dataclass(frozen=True)
class SignedHeaders:
    """The headers of a webhook with this body, signed with the secret some time ago."""

    secret: str
    body: str
    age: float = 0.0

    def __call__(self) -> Mapping[str, str]:
        """Return the headers, signed now."""
        sent = int(time.time() - self.age)
        signature = Webhook(self.secret).sign("whd_1", datetime.fromtimestamp(sent, UTC), self.body)
        return {
            "webhook-id": "whd_1",
            "webhook-timestamp": str(sent),
            "webhook-signature": signature,
        }
