"""The errors of the service, as one tree.

::

    MilepostError
    ├── InvalidRequest                   the message is malformed; names every violated field
    │   └── ProgressDecrease             progress would decrease
    ├── Unauthenticated                  the credential is missing or invalid
    ├── PermissionDenied                 the credential lacks the role that this RPC requires
    ├── OperationNotFound                unknown, or not visible to the caller
    │   ├── OperationExpired             returned to the owner only
    │   └── OperationDeleted             returned to the owner only
    ├── DeliveryNotFound                 unknown, or of another owner's operation
    ├── SigningSecretNotFound            the caller has no signing secret yet
    ├── ApiKeyNotFound                   no such key exists; returned to admins only
    ├── IllegalTransition                the transition table does not allow it from this status
    ├── CancellationNotRequested         there is no requested cancel to acknowledge
    ├── Conflict                         based on an old copy: read again and retry
    │   ├── RevisionMismatch
    │   ├── StaleAttempt
    │   └── LostRace
    ├── RevisionAhead                    the operation never reached this revision
    ├── RequestIdReused                  the same request_id with other content
    ├── UniqueKeyTaken                   an active operation of the owner has the same unique_key
    ├── WebhooksNotConfigured            no master key is configured to sign webhooks
    ├── LimitReached                     a limit of the principal; nothing was changed
    │   ├── RateLimited                  too many calls in a short time
    │   └── QuotaExceeded                too many active operations
    ├── StreamFull                       too many operations on one progress stream
    ├── Unavailable                      temporary: the same request may succeed later
    │   ├── StoreUnavailable
    │   ├── IdentityProviderUnavailable
    │   ├── Overloaded
    │   └── Draining
    └── IdsExhausted                     ten random ids in a row were already in use

Each leaf has a constant `reason`, by which programs decide, and typed fields. Its message is built
from these fields, and `facts` repeats every dynamic part, so no client parses text (AIP-193). One
table maps the errors to gRPC codes: ``api/errors.py``.

The modules beside this one hold the classes; import them from here.
"""

from milepost.domain.errors.absence import (
    ApiKeyNotFound,
    DeliveryNotFound,
    OperationDeleted,
    OperationExpired,
    OperationNotFound,
    SigningSecretNotFound,
)
from milepost.domain.errors.availability import (
    Draining,
    IdentityProviderUnavailable,
    IdsExhausted,
    Overloaded,
    StoreUnavailable,
    Unavailable,
    WebhooksNotConfigured,
)
from milepost.domain.errors.calls import (
    InvalidRequest,
    PermissionDenied,
    ProgressDecrease,
    Unauthenticated,
    Violation,
)
from milepost.domain.errors.capacity import LimitReached, QuotaExceeded, RateLimited, StreamFull
from milepost.domain.errors.conflicts import (
    CancellationNotRequested,
    Conflict,
    IllegalTransition,
    LostRace,
    RequestIdReused,
    RevisionAhead,
    RevisionMismatch,
    StaleAttempt,
    UniqueKeyTaken,
)
from milepost.domain.errors.root import MilepostError

__all__ = [
    "ApiKeyNotFound",
    "CancellationNotRequested",
    "Conflict",
    "DeliveryNotFound",
    "Draining",
    "IdentityProviderUnavailable",
    "IdsExhausted",
    "IllegalTransition",
    "InvalidRequest",
    "LimitReached",
    "LostRace",
    "MilepostError",
    "OperationDeleted",
    "OperationExpired",
    "OperationNotFound",
    "Overloaded",
    "PermissionDenied",
    "ProgressDecrease",
    "QuotaExceeded",
    "RateLimited",
    "RequestIdReused",
    "RevisionAhead",
    "RevisionMismatch",
    "SigningSecretNotFound",
    "StaleAttempt",
    "StoreUnavailable",
    "StreamFull",
    "Unauthenticated",
    "Unavailable",
    "UniqueKeyTaken",
    "Violation",
    "WebhooksNotConfigured",
]
