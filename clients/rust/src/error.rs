//! The errors of the client, and their tree.

use std::{collections::BTreeMap, error::Error as StdError, fmt, time::Duration};

use tonic::Code;

use crate::{operation::Operation, status::Status};

/// Result of a call.
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the client.
///
/// [`Error::is`] asks for a [`Kind`] and all kinds below it:
///
/// ```
/// # use milepost::{Error, Kind};
/// # fn handle(error: Error) {
/// if error.is(Kind::NotFound) {
///     println!("gone: {:?}", error.api().map(|facts| &facts.metadata));
/// }
/// # }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Error {
    /// A refused or broken call. Boxed, because it has many facts.
    Api(Box<ApiError>),
    /// A value that cannot be sent: it is not JSON, or not exactly. Nothing was sent.
    Value(ValueError),
    /// The operation has no result, because it failed.
    OperationFailed(Box<Operation>),
    /// The operation has no result, because it was cancelled.
    OperationCancelled(Box<Operation>),
    /// The operation had not ended when the timeout passed. It goes on.
    StillRunning(Box<Operation>),
    /// The work has ended: nothing more can be reported about it.
    WorkOver,
    /// The worker stops. The operation is released: another worker gets it.
    WorkerStopped,
    /// The client is closed.
    Closed,
    /// The client or the worker cannot be built so. The text never shows a credential.
    Configuration(String),
}

/// The kind of an error: one for each reason that the service gives.
///
/// ```text
/// Api                              a call that was refused or broken
/// ├── InvalidRequest               a field is malformed: see violations
/// │   └── ProgressDecrease         progress would decrease
/// ├── Unauthenticated              the credential is missing or invalid
/// ├── PermissionDenied             the credential lacks the role that the call requires
/// ├── NotFound                     no such resource is visible to you
/// │   ├── ApiKeyNotFound           unknown API key
/// │   ├── DeliveryNotFound         unknown, or of another owner's operation
/// │   ├── SigningSecretNotFound    you have no signing secret yet
/// │   └── OperationNotFound        unknown, or not visible to you
/// │       ├── OperationExpired     your own operation, expired
/// │       └── OperationDeleted     your own operation, deleted
/// ├── IllegalTransition            not allowed in the status found
/// │   └── Cancelled                not allowed because the operation is cancelled
/// ├── CancellationNotRequested     the acknowledged cancel was not requested
/// ├── Conflict                     based on an old copy: read again and retry
/// │   ├── RevisionMismatch         the operation is not at the expected revision
/// │   ├── StaleAttempt             the attempt is over: stop working on the operation
/// │   └── LostRace                 concurrent changes preceded every try
/// ├── RevisionAhead                the operation is not at that revision yet, or no longer
/// ├── RequestIdReused              the same request id with other content
/// ├── UniqueKeyTaken               an active operation has the key
/// ├── WebhooksNotConfigured        this service sends no webhooks
/// ├── LimitReached                 a limit: try again after the pause that is asked for
/// │   ├── RateLimited              too many calls
/// │   ├── QuotaExceeded            too many active operations
/// │   └── StreamFull               too many operations on one progress stream
/// ├── Unavailable                  temporary; the client retried until the deadline
/// │   ├── StoreUnavailable         the database does not answer
/// │   ├── IdentityProviderUnavailable  the issuer of your token does not answer
/// │   ├── Overloaded               the replica holds as many calls as it accepts
/// │   └── Draining                 the replica is shutting down
/// ├── DeadlineExceeded             no response in time: a change may have happened
/// ├── NotAvailable                 documented, but not in this release of the service
/// ├── UndecodableAnswer            accepted, but this client cannot read the response
/// └── Internal                     a defect of the service: the metadata has the trace id
///     └── IdsExhausted             the service found no free id
/// ```
///
/// The other kinds are those of [`Error`] itself. The kind follows from the reason that the service
/// sent, never from the text. An unknown reason is treated as its gRPC code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the tree above describes each")]
pub enum Kind {
    Api,
    InvalidRequest,
    ProgressDecrease,
    Unauthenticated,
    PermissionDenied,
    NotFound,
    ApiKeyNotFound,
    DeliveryNotFound,
    SigningSecretNotFound,
    OperationNotFound,
    OperationExpired,
    OperationDeleted,
    IllegalTransition,
    Cancelled,
    CancellationNotRequested,
    Conflict,
    RevisionMismatch,
    StaleAttempt,
    LostRace,
    RevisionAhead,
    RequestIdReused,
    UniqueKeyTaken,
    WebhooksNotConfigured,
    LimitReached,
    RateLimited,
    QuotaExceeded,
    StreamFull,
    Unavailable,
    StoreUnavailable,
    IdentityProviderUnavailable,
    Overloaded,
    Draining,
    DeadlineExceeded,
    NotAvailable,
    UndecodableAnswer,
    Internal,
    IdsExhausted,
    Value,
    OperationFailed,
    OperationCancelled,
    StillRunning,
    WorkOver,
    WorkerStopped,
    Closed,
    Configuration,
}

impl Kind {
    /// Return the kind one level up.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        Some(match self {
            Self::Api
            | Self::Value
            | Self::OperationFailed
            | Self::OperationCancelled
            | Self::StillRunning
            | Self::WorkOver
            | Self::WorkerStopped
            | Self::Closed
            | Self::Configuration => return None,
            Self::ProgressDecrease => Self::InvalidRequest,
            Self::ApiKeyNotFound
            | Self::DeliveryNotFound
            | Self::SigningSecretNotFound
            | Self::OperationNotFound => Self::NotFound,
            Self::OperationExpired | Self::OperationDeleted => Self::OperationNotFound,
            Self::Cancelled => Self::IllegalTransition,
            Self::RevisionMismatch | Self::StaleAttempt | Self::LostRace => Self::Conflict,
            Self::RateLimited | Self::QuotaExceeded | Self::StreamFull => Self::LimitReached,
            Self::StoreUnavailable
            | Self::IdentityProviderUnavailable
            | Self::Overloaded
            | Self::Draining => Self::Unavailable,
            Self::IdsExhausted => Self::Internal,
            _ => Self::Api,
        })
    }

    /// Return true if this is the kind, or one below it.
    #[must_use]
    pub fn is(self, kind: Self) -> bool {
        self == kind || self.parent().is_some_and(|parent| parent.is(kind))
    }
}

/// The facts of a refused or broken call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ApiError {
    /// The kind, by the reason; without a known reason by the code.
    pub kind: Kind,
    /// The gRPC code of the response.
    pub code: Code,
    /// The machine-readable reason, such as `ILLEGAL_TRANSITION`. Empty if the error does not come
    /// from the service itself, but from the connection, a proxy, or gRPC.
    pub reason: String,
    /// The description for people.
    pub message: String,
    /// The facts behind the message, by name.
    pub metadata: BTreeMap<String, String>,
    /// The invalid fields.
    pub violations: Vec<Violation>,
    /// The pause before the next try that the service asks for.
    pub retry_after: Option<Duration>,
}

/// One invalid field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Violation {
    /// The path of the field.
    pub field: String,
    /// The rule that the field violates.
    pub description: String,
}

impl ApiError {
    /// Return an error without a reason, as of gRPC itself.
    pub(crate) fn without_reason(code: Code, message: impl Into<String>) -> Self {
        Self {
            kind: crate::refusal::kind_of_code(code),
            code,
            reason: String::new(),
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
        }
    }

    /// Return the requested transition of an `ILLEGAL_TRANSITION`, such as "complete".
    #[must_use]
    pub fn transition(&self) -> Option<&str> {
        self.metadata.get("transition").map(String::as_str)
    }

    /// Return the status that an `ILLEGAL_TRANSITION` found.
    #[must_use]
    pub fn status(&self) -> Option<Status> {
        self.metadata.get("status").map(|name| Status::named(name))
    }

    /// Return the statuses that allow the transition of an `ILLEGAL_TRANSITION`.
    #[must_use]
    pub fn allowed(&self) -> Vec<Status> {
        let names = self.metadata.get("allowed").map_or("", String::as_str);
        names.split(',').filter(|name| !name.is_empty()).map(Status::named).collect()
    }

    /// Return the id of the operation that the error is about: with `UNIQUE_KEY_TAKEN`, of the
    /// active operation that has the key.
    #[must_use]
    pub fn operation_id(&self) -> Option<&str> {
        self.metadata.get("operation_id").map(String::as_str)
    }
}

/// A value that cannot be sent: it is not JSON, or would not arrive as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError(pub(crate) String);

impl fmt::Display for ValueError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl StdError for ValueError {}

impl Error {
    /// Return the kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Api(facts) => facts.kind,
            Self::Value(_) => Kind::Value,
            Self::OperationFailed(_) => Kind::OperationFailed,
            Self::OperationCancelled(_) => Kind::OperationCancelled,
            Self::StillRunning(_) => Kind::StillRunning,
            Self::WorkOver => Kind::WorkOver,
            Self::WorkerStopped => Kind::WorkerStopped,
            Self::Closed => Kind::Closed,
            Self::Configuration(_) => Kind::Configuration,
        }
    }

    /// Return true if the error is of the kind, or of one below it.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind().is(kind)
    }

    /// Return the facts of a refused or broken call.
    #[must_use]
    pub fn api(&self) -> Option<&ApiError> {
        match self {
            Self::Api(facts) => Some(facts),
            _ => None,
        }
    }

    /// Return the machine-readable reason of the service; empty without one.
    #[must_use]
    pub fn reason(&self) -> &str {
        self.api().map_or("", |facts| &facts.reason)
    }

    /// Return the gRPC code of a refused or broken call.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        self.api().map(|facts| facts.code)
    }

    /// Return the pause before the next try that the service asks for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.api().and_then(|facts| facts.retry_after)
    }

    /// Return the operation of an error about the absence of a result.
    #[must_use]
    pub fn operation(&self) -> Option<&Operation> {
        match self {
            Self::OperationFailed(operation)
            | Self::OperationCancelled(operation)
            | Self::StillRunning(operation) => Some(operation),
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Api(facts) if facts.reason.is_empty() => {
                write!(formatter, "{:?}: {}", facts.code, facts.message)
            }
            Self::Api(facts) => write!(formatter, "{}: {}", facts.reason, facts.message),
            Self::Value(error) => error.fmt(formatter),
            Self::OperationFailed(operation) => {
                write!(formatter, "operation {} failed", operation.id)?;
                for (index, error) in operation.errors.iter().enumerate() {
                    let separator = if index == 0 { ":" } else { ";" };
                    write!(formatter, "{separator} {}: {}", error.code, error.message)?;
                }
                Ok(())
            }
            Self::OperationCancelled(operation) | Self::StillRunning(operation) => {
                write!(formatter, "operation {} is {}", operation.id, operation.status)
            }
            Self::WorkOver => {
                formatter.write_str("the work is over: nothing more can be reported about it")
            }
            Self::WorkerStopped => formatter.write_str("the worker stops"),
            Self::Closed => formatter.write_str("the client is closed"),
            Self::Configuration(problem) => formatter.write_str(problem),
        }
    }
}

impl StdError for Error {}

impl From<ValueError> for Error {
    fn from(error: ValueError) -> Self {
        Self::Value(error)
    }
}

impl From<ApiError> for Error {
    fn from(facts: ApiError) -> Self {
        Self::Api(Box::new(facts))
    }
}
