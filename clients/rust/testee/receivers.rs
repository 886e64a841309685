//! The commands of receivers of webhooks.

use http::{HeaderMap, HeaderName, HeaderValue};
use milepost::{Delivery, DeliveryAttempt, DeliveryStatus, SigningSecret, SigningSecrets, webhook};
use serde_json::{Value, json};

use crate::{
    Answer, Problem, Testee,
    arguments::Command,
    callers::{client, keep, with_arguments},
    output::{seconds, time},
};

pub(crate) async fn signing_secrets(testee: &Testee, command: &Command) -> Answer {
    Ok(secrets(&client(testee, command)?.signing_secrets().await?))
}

pub(crate) async fn rotate_signing_secret(testee: &Testee, command: &Command) -> Answer {
    let mut call = client(testee, command)?.rotate_signing_secret();
    with_arguments!(call, command, request_id: command.text("request_id"));
    Ok(secrets(&call.await?))
}

fn secrets(found: &SigningSecrets) -> Value {
    let mut object = json!({"current": secret(&found.current)});
    if let Some(previous) = &found.previous {
        object["previous"] = secret(previous);
    }
    object
}

fn secret(secret: &SigningSecret) -> Value {
    let mut object = json!({"value": secret.value});
    for (name, at) in [("create_time", secret.create_time), ("expire_time", secret.expire_time)] {
        if let Some(text) = time(at) {
            object[name] = text.into();
        }
    }
    object
}

pub(crate) fn deliveries(testee: &Testee, command: &Command) -> Answer {
    let mut deliveries = client(testee, command)?.deliveries();
    let statuses = command.texts("statuses");
    with_arguments!(deliveries, command,
        operation_id: command.text("operation_id"),
        statuses: statuses.map(|names| names.into_iter().map(|name| status_of(&name))),
        page_size: command.small("page_size"),
    );
    Ok(keep(testee, deliveries.items(), delivery))
}

fn status_of(name: &str) -> DeliveryStatus {
    match name {
        "PENDING" => DeliveryStatus::Pending,
        "DELIVERED" => DeliveryStatus::Delivered,
        "EXHAUSTED" => DeliveryStatus::Exhausted,
        "STOPPED" => DeliveryStatus::Stopped,
        _ => DeliveryStatus::Unknown,
    }
}

pub(crate) async fn redeliver(testee: &Testee, command: &Command) -> Answer {
    let client = client(testee, command)?;
    let mut call = client.redeliver(command.required("delivery_id")?);
    with_arguments!(call, command, request_id: command.text("request_id"));
    Ok(delivery(&call.await?))
}

pub(crate) async fn send_test_webhook(testee: &Testee, command: &Command) -> Answer {
    let client = client(testee, command)?;
    Ok(attempt(&client.send_test_webhook(command.required("callback_url")?).await?))
}

fn delivery(delivery: &Delivery) -> Value {
    let mut object = json!({
        "id": delivery.id, "operation_id": delivery.operation_id, "revision": delivery.revision,
        "event_type": delivery.event_type, "callback_url": delivery.callback_url,
        "status": format!("{:?}", delivery.status).to_uppercase(),
        "attempts": delivery.attempts.iter().map(attempt).collect::<Vec<_>>(),
    });
    for (name, at) in [
        ("create_time", delivery.create_time),
        ("next_attempt_time", delivery.next_attempt_time),
        ("settle_time", delivery.settle_time),
    ] {
        if let Some(text) = time(at) {
            object[name] = text.into();
        }
    }
    object
}

fn attempt(attempt: &DeliveryAttempt) -> Value {
    let duration = seconds(attempt.duration).unwrap_or(0.0);
    let mut object = json!({"number": attempt.number, "duration": duration});
    if let Some(text) = time(attempt.start_time) {
        object["start_time"] = text.into();
    }
    if let Some(code) = attempt.status_code {
        object["status_code"] = code.into();
    }
    if let Some(error) = &attempt.error {
        object["error"] = error.clone().into();
    }
    object
}

pub(crate) fn verify_webhook(command: &Command) -> Answer {
    let mut headers = HeaderMap::new();
    for (name, value) in command.get("headers").and_then(Value::as_object).into_iter().flatten() {
        let name = HeaderName::try_from(name.as_str());
        let value = HeaderValue::try_from(value.as_str().unwrap_or_default());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.insert(name, value);
        }
    }
    let (body, secrets) = (command.required("body")?, command.texts("secrets").unwrap_or_default());
    webhook::verify(&headers, body.as_bytes(), secrets)
        .map_err(|error| Problem::NotVerified(error.to_string()))?;
    let content = serde_json::from_str(&body);
    content.map(|content: Value| json!({"content": content})).map_err(|_| Problem::Unsupported)
}
