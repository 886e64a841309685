//! Operations and their events, as the client shows them.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use serde::de::DeserializeOwned;

use crate::{
    error::{Error, Result, ValueError},
    json,
    payload::Payload,
    proto,
    status::{NextStep, Status},
};

/// A JSON object.
pub type JsonObject = serde_json::Map<String, serde_json::Value>;

/// One reason of a failure, as the worker or the service reported it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct OperationError {
    /// The kind of error for programs, such as `CODEC_UNSUPPORTED`.
    pub code: String,
    /// The reason for people.
    pub message: String,
    /// The part of the input or of the system that caused it.
    pub source: Option<String>,
    /// Further data of the worker.
    pub details: Option<JsonObject>,
}

impl OperationError {
    /// Return an error with a code for programs and a message for people.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), source: None, details: None }
    }

    fn from_message(message: proto::OperationError) -> Self {
        Self {
            code: message.code,
            message: message.message,
            source: message.source,
            details: message.details.map(json::from_struct),
        }
    }

    pub(crate) fn to_message(&self) -> std::result::Result<proto::OperationError, ValueError> {
        Ok(proto::OperationError {
            code: self.code.clone(),
            message: self.message.clone(),
            source: self.source.clone(),
            details: self.details.as_ref().map(json::to_struct).transpose()?,
        })
    }
}

/// The pauses between the attempts of an operation. Absent fields have their defaults.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct RetryPolicy {
    /// The pause after the first failed attempt: 1 s by default, at most 1 h.
    pub initial_backoff: Option<Duration>,
    /// The factor between two pauses: 2 by default, from 1 to 10.
    pub backoff_multiplier: Option<f64>,
    /// The longest pause: 5 min by default, at most 24 h.
    pub max_backoff: Option<Duration>,
}

impl RetryPolicy {
    fn from_message(message: proto::RetryPolicy) -> Self {
        Self {
            initial_backoff: from_duration(message.initial_backoff),
            backoff_multiplier: message.backoff_multiplier,
            max_backoff: from_duration(message.max_backoff),
        }
    }

    pub(crate) fn to_message(self) -> proto::RetryPolicy {
        proto::RetryPolicy {
            initial_backoff: self.initial_backoff.map(to_duration),
            backoff_multiplier: self.backoff_multiplier,
            max_backoff: self.max_backoff.map(to_duration),
        }
    }
}

/// One piece of work, in the state that was read.
///
/// `list` leaves out `metadata`, `result`, `errors` and `checkpoint` unless asked for them, and so
/// do answers to progress. The comments of [`proto::Operation`] describe each field.
#[derive(Debug, Clone)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are those of the message, which describes them")]
pub struct Operation {
    pub id: String,
    pub function: String,
    pub version: Option<String>,
    pub owner: String,
    pub metadata: Option<JsonObject>,
    pub original_request_id: Option<String>,
    pub callback_url: Option<String>,

    pub status: Status,
    /// The completed share, from 0.0 to 1.0; None until first reported.
    pub progress: Option<f64>,
    pub progress_message: Option<String>,
    /// The result; None if the worker sent none. JSON null is a value.
    pub result: Option<Payload>,
    pub errors: Vec<OperationError>,
    /// The state that a worker saved for the next attempt.
    pub checkpoint: Option<Payload>,

    /// Rises by one with every change.
    pub revision: i64,
    /// The number of starts.
    pub attempt: i32,
    pub max_attempts: i32,
    pub failed_attempts: i32,
    pub worker: Option<String>,
    pub priority: i32,
    pub unique_key: Option<String>,
    pub retry_policy: RetryPolicy,
    pub cancel_reason: Option<String>,
    /// The trace that created the operation, if sampled, as the header of W3C Trace Context.
    pub traceparent: Option<String>,

    pub ttl: Option<Duration>,
    pub retry_after: Option<Duration>,
    pub queue_timeout: Option<Duration>,
    pub run_timeout: Option<Duration>,

    pub create_time: Option<SystemTime>,
    pub schedule_time: Option<SystemTime>,
    pub next_attempt_time: Option<SystemTime>,
    pub start_time: Option<SystemTime>,
    pub progress_time: Option<SystemTime>,
    pub complete_time: Option<SystemTime>,
    pub cancel_time: Option<SystemTime>,
    pub cancel_request_time: Option<SystemTime>,
    pub cancel_delivered_time: Option<SystemTime>,
    pub cancel_expire_time: Option<SystemTime>,
    pub lease_expire_time: Option<SystemTime>,
    pub queue_expire_time: Option<SystemTime>,
    pub run_expire_time: Option<SystemTime>,
    pub expire_time: Option<SystemTime>,

    /// None for a terminal operation, and for a step of a newer service.
    pub next_step: Option<NextStep>,
    pub next_step_deadline: Option<SystemTime>,

    /// True if the call changed nothing, because an earlier one with the same request id did.
    pub replayed: bool,
    /// True if the create met an active operation with the same unique key.
    pub joined: bool,
}

impl Operation {
    /// Return the JSON result as a value of your own type. Without a result it is that of null.
    pub fn decode_result<T: DeserializeOwned>(&self) -> Result<T> {
        decode(self.result.as_ref())
    }

    /// Return the JSON checkpoint as a value of your own type; None without one.
    pub fn decode_checkpoint<T: DeserializeOwned>(&self) -> Result<Option<T>> {
        self.checkpoint.as_ref().map(Payload::decode).transpose()
    }

    /// Return the operation, or why it has no result.
    pub(crate) fn completed(self) -> Result<Self> {
        match self.status {
            Status::Completed => Ok(self),
            Status::Failed => Err(Error::OperationFailed(self.into())),
            Status::Cancelled => Err(Error::OperationCancelled(self.into())),
            _ => Err(Error::StillRunning(self.into())),
        }
    }

    pub(crate) fn from_message(message: proto::Operation) -> Self {
        Self {
            id: message.id,
            function: message.function,
            version: message.version,
            owner: message.owner,
            metadata: message.metadata.map(json::from_struct),
            original_request_id: message.original_request_id,
            callback_url: message.callback_url,
            status: Status::from_number(message.status),
            progress: message.progress,
            progress_message: message.progress_message,
            result: message.result.map(Payload::from_any),
            errors: message.errors.into_iter().map(OperationError::from_message).collect(),
            checkpoint: message.checkpoint.map(Payload::from_any),
            revision: message.revision,
            attempt: message.attempt,
            max_attempts: message.max_attempts,
            failed_attempts: message.failed_attempts,
            worker: message.worker,
            priority: message.priority,
            unique_key: message.unique_key,
            retry_policy: message.retry_policy.map(RetryPolicy::from_message).unwrap_or_default(),
            cancel_reason: message.cancel_reason,
            traceparent: message.traceparent,
            ttl: from_duration(message.ttl),
            retry_after: from_duration(message.retry_after),
            queue_timeout: from_duration(message.queue_timeout),
            run_timeout: from_duration(message.run_timeout),
            create_time: from_time(message.create_time),
            schedule_time: from_time(message.schedule_time),
            next_attempt_time: from_time(message.next_attempt_time),
            start_time: from_time(message.start_time),
            progress_time: from_time(message.progress_time),
            complete_time: from_time(message.complete_time),
            cancel_time: from_time(message.cancel_time),
            cancel_request_time: from_time(message.cancel_request_time),
            cancel_delivered_time: from_time(message.cancel_delivered_time),
            cancel_expire_time: from_time(message.cancel_expire_time),
            lease_expire_time: from_time(message.lease_expire_time),
            queue_expire_time: from_time(message.queue_expire_time),
            run_expire_time: from_time(message.run_expire_time),
            expire_time: from_time(message.expire_time),
            next_step: NextStep::from_number(message.next_step),
            next_step_deadline: from_time(message.next_step_deadline),
            replayed: false,
            joined: false,
        }
    }

    /// Return the operation of the answer to a write.
    pub(crate) fn from_answer(message: Option<proto::Operation>, replayed: bool) -> Self {
        Self { replayed, ..Self::from_message(message.unwrap_or_default()) }
    }

    pub(crate) fn from_messages(messages: Vec<proto::Operation>) -> Vec<Self> {
        messages.into_iter().map(Self::from_message).collect()
    }
}

/// The record of one transition of an operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event {
    /// The revision of the operation after the transition.
    pub revision: i64,
    /// The type of the event, such as `operation.retrying`.
    pub event_type: String,
    /// The name of the transition, such as `retry`.
    pub transition: String,
    /// The time of the transition.
    pub time: Option<SystemTime>,
    /// The subject that made the transition; `milepost` for the service itself.
    pub actor: String,
    /// The attempt that it belongs to.
    pub attempt: i32,
    /// The worker of that attempt.
    pub worker: Option<String>,
    /// The reason of a cancel or of a release.
    pub reason: Option<String>,
    /// The errors of the attempt, if the transition ended it with errors.
    pub errors: Vec<OperationError>,
}

impl Event {
    pub(crate) fn from_message(message: proto::OperationEvent) -> Self {
        Self {
            revision: message.revision,
            event_type: message.r#type,
            transition: message.transition,
            time: from_time(message.time),
            actor: message.actor,
            attempt: message.attempt,
            worker: message.worker,
            reason: message.reason,
            errors: message.errors.into_iter().map(OperationError::from_message).collect(),
        }
    }
}

/// Return the value as your own type; without one, what null is.
pub(crate) fn decode<T: DeserializeOwned>(payload: Option<&Payload>) -> Result<T> {
    payload.unwrap_or(&Payload::Json(serde_json::Value::Null)).decode()
}

pub(crate) fn from_time(message: Option<Timestamp>) -> Option<SystemTime> {
    message.and_then(|time| time.try_into().ok())
}

pub(crate) fn from_duration(message: Option<prost_types::Duration>) -> Option<Duration> {
    message.and_then(|duration| duration.try_into().ok())
}

/// Return the duration as a message, which holds 10,000 years.
pub(crate) fn to_duration(duration: Duration) -> prost_types::Duration {
    const MAX_S: u64 = 315_576_000_000;
    let seconds = duration.as_secs().min(MAX_S);
    prost_types::Duration {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a newer service are shown as unknown, and not as terminal.
    #[test]
    fn unknown_values_are_shown_as_unknown() {
        let message = proto::Operation { status: 99, next_step: 99, ..Default::default() };
        let operation = Operation::from_message(message);
        assert_eq!((operation.status, operation.next_step), (Status::Unknown, None));
        assert!(!operation.status.is_terminal());
    }

    /// Every status has the number of its name.
    #[test]
    fn statuses_have_numbers() {
        for number in 1..=5 {
            assert_eq!(Status::from_number(number).number(), number);
        }
    }
}
