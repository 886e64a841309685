//! Errors rebuilt from the status of a call, by their reason.

use std::{collections::BTreeMap, time::Duration};

use tonic::Code;
use tonic_types::{ErrorDetail, StatusExt};

use crate::error::{ApiError, Error, Kind, Violation};

/// The domain of the reasons of the service.
const DOMAIN: &str = "milepost";
/// Longer pauses are cut: a time so far away cannot be computed with.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(86_400);

/// Return the error of a failed call.
pub(crate) fn rebuild(status: &tonic::Status) -> Error {
    let mut facts = ApiError::without_reason(code_of(status), message_of(status));
    for detail in status.get_error_details_vec() {
        match detail {
            ErrorDetail::ErrorInfo(info) if info.domain == DOMAIN => {
                facts.reason = info.reason;
                facts.metadata = info.metadata.into_iter().collect();
            }
            ErrorDetail::BadRequest(request) => {
                facts.violations.extend(request.field_violations.into_iter().map(|violation| {
                    Violation { field: violation.field, description: violation.description }
                }));
            }
            ErrorDetail::RetryInfo(info) => {
                facts.retry_after = info.retry_delay.map(|delay| delay.min(MAX_RETRY_DELAY));
            }
            _ => {}
        }
    }
    typed(facts)
}

/// Return the code. An error with a cause is one of the connection, which tonic often calls unknown;
/// what the service or a proxy has sent has none.
fn code_of(status: &tonic::Status) -> Code {
    match (status.code(), std::error::Error::source(status)) {
        (Code::Unknown, Some(_)) => Code::Unavailable,
        (code, _) => code,
    }
}

/// Return the message of the status, with the causes that gRPC itself does not name.
fn message_of(status: &tonic::Status) -> String {
    let mut message = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = if message.is_empty() { text } else { format!("{message}: {text}") };
        }
        cause = error.source();
    }
    message
}

/// Return the error with the kind of its reason, or of its code if the reason is unknown.
pub(crate) fn typed(mut facts: ApiError) -> Error {
    facts.kind =
        kind_of_reason(&facts.reason, &facts.metadata).unwrap_or_else(|| kind_of_code(facts.code));
    facts.into()
}

/// Return the kind of the reason; None if it is unknown.
pub(crate) fn kind_of_reason(reason: &str, metadata: &BTreeMap<String, String>) -> Option<Kind> {
    Some(match reason {
        "INVALID_REQUEST" => Kind::InvalidRequest,
        "PROGRESS_DECREASE" => Kind::ProgressDecrease,
        "UNAUTHENTICATED" => Kind::Unauthenticated,
        "PERMISSION_DENIED" => Kind::PermissionDenied,
        "OPERATION_NOT_FOUND" => Kind::OperationNotFound,
        "OPERATION_EXPIRED" => Kind::OperationExpired,
        "OPERATION_DELETED" => Kind::OperationDeleted,
        "API_KEY_NOT_FOUND" => Kind::ApiKeyNotFound,
        "DELIVERY_NOT_FOUND" => Kind::DeliveryNotFound,
        "SIGNING_SECRET_NOT_FOUND" => Kind::SigningSecretNotFound,
        "ILLEGAL_TRANSITION" => match metadata.get("status").map(String::as_str) {
            Some("CANCELLED") => Kind::Cancelled,
            _ => Kind::IllegalTransition,
        },
        "CANCELLATION_NOT_REQUESTED" => Kind::CancellationNotRequested,
        "REVISION_MISMATCH" => Kind::RevisionMismatch,
        "STALE_ATTEMPT" => Kind::StaleAttempt,
        "LOST_RACE" => Kind::LostRace,
        "REVISION_AHEAD" => Kind::RevisionAhead,
        "UNIQUE_KEY_TAKEN" => Kind::UniqueKeyTaken,
        "REQUEST_ID_REUSED" => Kind::RequestIdReused,
        "WEBHOOKS_NOT_CONFIGURED" => Kind::WebhooksNotConfigured,
        "RATE_LIMITED" => Kind::RateLimited,
        "QUOTA_EXCEEDED" => Kind::QuotaExceeded,
        "STREAM_FULL" => Kind::StreamFull,
        "STORE_UNAVAILABLE" => Kind::StoreUnavailable,
        "IDENTITY_PROVIDER_UNAVAILABLE" => Kind::IdentityProviderUnavailable,
        "OVERLOADED" => Kind::Overloaded,
        "DRAINING" => Kind::Draining,
        "INTERNAL" => Kind::Internal,
        "IDS_EXHAUSTED" => Kind::IdsExhausted,
        _ => return None,
    })
}

/// Return the kind of a reason of a newer service, and of an answer of gRPC itself.
pub(crate) fn kind_of_code(code: Code) -> Kind {
    match code {
        Code::InvalidArgument => Kind::InvalidRequest,
        Code::Unauthenticated => Kind::Unauthenticated,
        Code::PermissionDenied => Kind::PermissionDenied,
        Code::NotFound => Kind::NotFound,
        Code::Aborted => Kind::Conflict,
        Code::ResourceExhausted => Kind::LimitReached,
        Code::Unavailable => Kind::Unavailable,
        Code::DeadlineExceeded => Kind::DeadlineExceeded,
        Code::Unimplemented => Kind::NotAvailable,
        Code::Internal => Kind::Internal,
        _ => Kind::Api,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use tonic_types::ErrorDetails;

    use super::*;

    /// Every reason of the contract has a kind, which is named after it.
    #[test]
    fn every_documented_reason_has_a_kind() {
        let contract =
            std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md"));
        let contract = contract.expect("the contract of the clients");
        let mut count = 0;
        for line in contract.lines() {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, reason, code, ..] = cells.as_slice() else {
                continue;
            };
            let is_code =
                !code.is_empty() && code.chars().all(|c| c.is_ascii_uppercase() || c == '_');
            if !(reason.starts_with('`') && is_code) {
                continue;
            }
            let reason = reason.trim_matches('`');
            let kind = kind_of_reason(reason, &BTreeMap::new());
            let name = format!("{:?}", kind.unwrap_or_else(|| panic!("{reason} has no kind")));
            assert_eq!(name.to_uppercase(), reason.replace('_', ""), "{reason}");
            count += 1;
        }
        assert!(count >= 28, "the table has only {count} reasons");
    }

    /// A refusal keeps its reason, metadata, violations and pause.
    #[test]
    fn refusals_keep_their_details() {
        let mut details = ErrorDetails::new();
        details
            .set_error_info("RATE_LIMITED", DOMAIN, HashMap::from([("limit".into(), "5".into())]))
            .set_retry_info(Some(Duration::from_secs(3)))
            .add_bad_request_violation("f", "d");
        let status =
            tonic::Status::with_error_details(Code::ResourceExhausted, "slow down", details);
        let error = rebuild(&status);
        assert!(error.is(Kind::RateLimited) && error.is(Kind::LimitReached) && error.is(Kind::Api));
        assert!(!error.is(Kind::QuotaExceeded));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
        let facts = error.api().expect("facts");
        assert_eq!(facts.metadata["limit"], "5");
        assert_eq!(facts.violations, [Violation { field: "f".into(), description: "d".into() }]);
        assert_eq!(error.to_string(), "RATE_LIMITED: slow down");
    }

    /// A reason of another domain is ignored, and an unknown one counts as its code.
    #[test]
    fn unknown_reasons_count_as_their_code() {
        let mut details = ErrorDetails::new();
        details.set_error_info("RATE_LIMITED", "another", HashMap::new());
        let foreign = tonic::Status::with_error_details(Code::Unavailable, "m", details);
        assert_eq!((rebuild(&foreign).kind(), rebuild(&foreign).reason()), (Kind::Unavailable, ""));
        let mut details = ErrorDetails::new();
        details.set_error_info("NEW_REASON", DOMAIN, HashMap::new());
        let newer = tonic::Status::with_error_details(Code::Aborted, "m", details);
        assert_eq!(
            (rebuild(&newer).kind(), rebuild(&newer).reason()),
            (Kind::Conflict, "NEW_REASON")
        );
    }

    /// An error of the connection is a service that cannot be reached.
    #[test]
    fn broken_connections_are_unavailable() {
        let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
        let error = rebuild(&tonic::Status::from_error(Box::new(broken)));
        assert!(error.is(Kind::Unavailable), "{error}");
        assert_eq!(rebuild(&tonic::Status::unknown("an error page")).kind(), Kind::Api);
    }

    /// A transition of a cancelled operation is an error of its own, below the illegal ones.
    #[test]
    fn cancelled_is_an_illegal_transition() {
        let mut facts = ApiError::without_reason(Code::FailedPrecondition, "m");
        facts.reason = "ILLEGAL_TRANSITION".into();
        facts.metadata = BTreeMap::from([
            ("status".into(), "CANCELLED".into()),
            ("allowed".into(), "PENDING,PROCESSING".into()),
        ]);
        let error = typed(facts);
        assert!(error.is(Kind::Cancelled) && error.is(Kind::IllegalTransition));
        assert_eq!(error.api().expect("facts").allowed().len(), 2);
    }
}
