//! The verification of webhooks, after the specification of Standard Webhooks.
//!
//! ```
//! # fn receive(headers: &http::HeaderMap, body: &[u8], secret: &str) {
//! match milepost::webhook::verify(headers, body, [secret]) {
//!     Ok(event) => println!("{} of {}", event.event_type, event.data["id"]),
//!     Err(not_verified) => println!("answer 401: {not_verified}"),
//! }
//! # }
//! ```

use std::fmt;

use http::HeaderMap;
use serde_json::Value;
use standardwebhooks::Webhook;

/// A webhook that was verified.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct WebhookEvent {
    /// The id of the webhook, the same for every attempt: handle each once.
    pub id: String,
    /// The type of the event, such as `operation.completed`.
    pub event_type: String,
    /// The time of the event, after RFC 3339.
    pub timestamp: String,
    /// The data of the event.
    pub data: Value,
}

/// A request that must not be trusted. Answer with 401.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotVerified(String);

impl fmt::Display for NotVerified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "the webhook is not verified: {}", self.0)
    }
}

impl std::error::Error for NotVerified {}

/// Verify the signature of a webhook by any of the secrets, and return its content.
///
/// For 24 hours after a rotation, two secrets sign: give both, or the one that you have.
///
/// # Errors
///
/// [`NotVerified`] if no secret has signed the body, or the request is older than 5 minutes.
pub fn verify<S: AsRef<str>>(
    headers: &HeaderMap,
    body: &[u8],
    secrets: impl IntoIterator<Item = S>,
) -> Result<WebhookEvent, NotVerified> {
    let mut problem = NotVerified("no secret was given".to_owned());
    for secret in secrets {
        match verify_by(secret.as_ref(), headers, body) {
            Ok(()) => return read(headers, body),
            Err(refused) => problem = refused,
        }
    }
    Err(problem)
}

/// Verify with the library, whose errors do not show the secret.
fn verify_by(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), NotVerified> {
    let webhook =
        Webhook::new(secret).map_err(|_| NotVerified("the secret is malformed".into()))?;
    webhook.verify(body, headers).map_err(|error| NotVerified(error.to_string()))
}

fn read(headers: &HeaderMap, body: &[u8]) -> Result<WebhookEvent, NotVerified> {
    let content: Value =
        serde_json::from_slice(body).map_err(|error| NotVerified(error.to_string()))?;
    let text = |name: &str| content[name].as_str().unwrap_or_default().to_owned();
    let id = headers.get("webhook-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    Ok(WebhookEvent {
        id: id.to_owned(),
        event_type: text("type"),
        timestamp: text("timestamp"),
        data: content["data"].clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const OTHER: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    const BODY: &[u8] = br#"{"type":"operation.completed","timestamp":"T","data":{"id":"op_1"}}"#;

    fn signed(age_s: u64) -> HeaderMap {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time");
        let time = i64::try_from(now.as_secs() - age_s).expect("a time");
        let signature = Webhook::new(SECRET).expect("a secret").sign("whd_1", time, BODY);
        let mut headers = HeaderMap::new();
        let mut set = |name, value: String| headers.insert(name, value.parse().expect("a header"));
        set("webhook-id", "whd_1".to_owned());
        set("webhook-timestamp", time.to_string());
        set("webhook-signature", signature.expect("a signature"));
        headers
    }

    /// Only what one of the secrets has signed is trusted.
    #[test]
    fn signatures_are_verified() {
        let event = verify(&signed(0), BODY, [OTHER, SECRET]).expect("verified");
        assert_eq!(
            (event.id.as_str(), event.event_type.as_str()),
            ("whd_1", "operation.completed")
        );
        assert_eq!(event.data["id"], "op_1");
        assert!(verify(&signed(0), BODY, [OTHER]).is_err());
        assert!(verify(&signed(0), b"{}", [SECRET]).is_err());
        assert!(verify(&signed(600), BODY, [SECRET]).is_err());
        assert!(verify(&HeaderMap::new(), BODY, [SECRET]).is_err());
        assert!(verify(&signed(0), BODY, ["whsec_%"]).is_err());
        assert!(verify(&signed(0), BODY, [""; 0]).is_err());
    }
}
