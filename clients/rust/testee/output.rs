//! The answers of the client as JSON.

use std::time::{Duration, SystemTime};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use milepost::{Error, Event, Kind, NextStep, Operation, OperationError, Payload, RetryPolicy};
use prost_types::Timestamp;
use serde_json::{Map, Value, json};

use crate::Problem;

/// Return the object without what is absent.
fn without_absent(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            members.into_iter().filter(|(_, member)| !member.is_null()).collect()
        }
        value => value,
    }
}

pub(crate) fn time(time: Option<SystemTime>) -> Option<String> {
    time.map(|time| Timestamp::from(time).to_string())
}

pub(crate) fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.filter(|duration| !duration.is_zero()).map(|duration| duration.as_secs_f64())
}

pub(crate) fn operation(operation: &Operation) -> Value {
    let mut found = without_absent(json!({
        "id": operation.id, "function": operation.function, "owner": operation.owner,
        "status": operation.status.name(), "revision": operation.revision,
        "attempt": operation.attempt, "max_attempts": operation.max_attempts,
        "failed_attempts": operation.failed_attempts, "priority": operation.priority,
        "replayed": operation.replayed, "joined": operation.joined,
        "version": operation.version, "original_request_id": operation.original_request_id,
        "callback_url": operation.callback_url, "progress": operation.progress,
        "progress_message": operation.progress_message, "worker": operation.worker,
        "unique_key": operation.unique_key, "cancel_reason": operation.cancel_reason,
        "traceparent": operation.traceparent,
        "next_step": operation.next_step.map(step), "ttl": seconds(operation.ttl),
        "retry_after": seconds(operation.retry_after),
        "queue_timeout": seconds(operation.queue_timeout),
        "run_timeout": seconds(operation.run_timeout),
        "retry_policy": retry_policy(&operation.retry_policy),
        "metadata": operation.metadata.as_ref().filter(|members| !members.is_empty()),
        "errors": errors(&operation.errors),
    }));
    for (name, at) in times(operation) {
        if let Some(text) = time(at) {
            found[name] = text.into();
        }
    }
    if let Some(result) = &operation.result {
        found["result"] = payload(result);
    }
    if let Some(checkpoint) = &operation.checkpoint {
        found["checkpoint"] = payload(checkpoint);
    }
    found
}

fn times(operation: &Operation) -> [(&'static str, Option<SystemTime>); 15] {
    [
        ("create_time", operation.create_time),
        ("schedule_time", operation.schedule_time),
        ("next_attempt_time", operation.next_attempt_time),
        ("start_time", operation.start_time),
        ("progress_time", operation.progress_time),
        ("complete_time", operation.complete_time),
        ("cancel_time", operation.cancel_time),
        ("cancel_request_time", operation.cancel_request_time),
        ("cancel_delivered_time", operation.cancel_delivered_time),
        ("cancel_expire_time", operation.cancel_expire_time),
        ("lease_expire_time", operation.lease_expire_time),
        ("queue_expire_time", operation.queue_expire_time),
        ("run_expire_time", operation.run_expire_time),
        ("expire_time", operation.expire_time),
        ("next_step_deadline", operation.next_step_deadline),
    ]
}

fn step(step: NextStep) -> &'static str {
    match step {
        NextStep::Claim => "CLAIM",
        NextStep::Renewal => "RENEWAL",
        _ => "END",
    }
}

fn retry_policy(policy: &RetryPolicy) -> Option<Value> {
    let in_seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64());
    let found = without_absent(json!({
        "initial_backoff": in_seconds(policy.initial_backoff),
        "backoff_multiplier": policy.backoff_multiplier,
        "max_backoff": in_seconds(policy.max_backoff),
    }));
    (found != json!({})).then_some(found)
}

fn errors(errors: &[OperationError]) -> Option<Vec<Value>> {
    let of_error = |error: &OperationError| {
        without_absent(json!({
            "code": error.code, "message": error.message, "source": error.source,
            "details": error.details.as_ref().filter(|members| !members.is_empty()),
        }))
    };
    (!errors.is_empty()).then(|| errors.iter().map(of_error).collect())
}

pub(crate) fn event(event: &Event) -> Value {
    without_absent(json!({
        "revision": event.revision, "type": event.event_type, "transition": event.transition,
        "time": time(event.time), "actor": event.actor, "attempt": event.attempt,
        "worker": event.worker, "reason": event.reason, "errors": errors(&event.errors),
    }))
}

/// Return a result or a checkpoint.
pub(crate) fn payload(payload: &Payload) -> Value {
    match payload {
        Payload::Json(value) => value.clone(),
        Payload::Message(packed) => json!({"$any": {
            "type_url": packed.type_url, "value": BASE64_STANDARD.encode(&packed.value),
        }}),
        _ => Value::Null,
    }
}

pub(crate) fn error(problem: &Problem) -> Value {
    let message = match problem {
        Problem::Api(error) => match error.api() {
            Some(facts) => facts.message.clone(),
            None => error.to_string(),
        },
        Problem::NotVerified(message) | Problem::Other(message) => message.clone(),
        Problem::Unsupported => String::new(),
    };
    let mut found = json!({
        "class": "Error", "reason": "", "code": null, "message": message, "metadata": {},
        "violations": [], "retry_after": null,
    });
    match problem {
        Problem::NotVerified(_) => found["class"] = "NotVerified".into(),
        Problem::Api(error) => add_facts(&mut found, error),
        _ => {}
    }
    found
}

fn add_facts(found: &mut Value, error: &Error) {
    found["class"] = class(error).into();
    let Some(facts) = error.api() else { return };
    found["reason"] = facts.reason.clone().into();
    found["code"] = code(facts.code).into();
    let metadata = facts.metadata.iter().map(|(name, fact)| (name.clone(), json!(fact)));
    found["metadata"] = Value::Object(metadata.collect::<Map<_, _>>());
    let of_violation = |violation: &milepost::Violation| json!({"field": violation.field, "problem": violation.description});
    found["violations"] = facts.violations.iter().map(of_violation).collect();
    found["retry_after"] = json!(seconds(facts.retry_after));
}

/// Return the name of the class of the error in the Python client.
pub(crate) fn class(error: &Error) -> String {
    match error.kind() {
        Kind::Api => "MilepostError".to_owned(),
        Kind::Internal => "InternalError".to_owned(),
        Kind::Value | Kind::WorkOver | Kind::Closed | Kind::Configuration => "Error".to_owned(),
        kind => format!("{kind:?}"),
    }
}

/// Return the name of the code as the specification of gRPC writes it.
fn code(code: milepost::Code) -> String {
    let mut name = String::new();
    for letter in format!("{code:?}").chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    if name == "OK" { name } else { name.replace("CANCELED", "CANCELLED") }
}
