//! The calls of a receiver of webhooks.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use crate::{
    answer::{answer, call, setters},
    client::Client,
    error::Result,
    items::Items,
    operation::{from_duration, from_time},
    proto,
};

/// A secret that signs your webhooks.
#[derive(Clone)]
#[non_exhaustive]
pub struct SigningSecret {
    /// The secret itself. Keep it as safe as a password.
    pub value: String,
    /// The time of its creation.
    pub create_time: Option<SystemTime>,
    /// The time at which it stops signing; only after a rotation.
    pub expire_time: Option<SystemTime>,
}

/// Shows everything but the secret.
impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("SigningSecret")
            .field("create_time", &self.create_time)
            .field("expire_time", &self.expire_time)
            .finish_non_exhaustive()
    }
}

impl SigningSecret {
    fn from_message(message: proto::SigningSecret) -> Self {
        Self {
            value: message.value,
            create_time: from_time(message.create_time),
            expire_time: from_time(message.expire_time),
        }
    }
}

/// The secrets that sign your webhooks; for 24 hours after a rotation, both.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SigningSecrets {
    /// The present secret.
    pub current: SigningSecret,
    /// The secret before the rotation.
    pub previous: Option<SigningSecret>,
}

impl SigningSecrets {
    fn from_messages(
        current: Option<proto::SigningSecret>,
        previous: Option<proto::SigningSecret>,
    ) -> Self {
        Self {
            current: SigningSecret::from_message(current.unwrap_or_default()),
            previous: previous.map(SigningSecret::from_message),
        }
    }
}

/// The status of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeliveryStatus {
    /// A status of a newer service.
    Unknown,
    /// Waits for its next attempt.
    Pending,
    /// Was accepted by the receiver.
    Delivered,
    /// Was given up after its last attempt.
    Exhausted,
    /// Was stopped before it was delivered.
    Stopped,
}

impl DeliveryStatus {
    fn from_number(number: i32) -> Self {
        match proto::DeliveryStatus::try_from(number).unwrap_or_default() {
            proto::DeliveryStatus::Unspecified => Self::Unknown,
            proto::DeliveryStatus::Pending => Self::Pending,
            proto::DeliveryStatus::Delivered => Self::Delivered,
            proto::DeliveryStatus::Exhausted => Self::Exhausted,
            proto::DeliveryStatus::Stopped => Self::Stopped,
        }
    }

    fn number(self) -> i32 {
        let status = match self {
            Self::Unknown => proto::DeliveryStatus::Unspecified,
            Self::Pending => proto::DeliveryStatus::Pending,
            Self::Delivered => proto::DeliveryStatus::Delivered,
            Self::Exhausted => proto::DeliveryStatus::Exhausted,
            Self::Stopped => proto::DeliveryStatus::Stopped,
        };
        status.into()
    }
}

/// One attempt to send a webhook.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct DeliveryAttempt {
    /// The number of the attempt, from 1.
    pub number: i32,
    /// The time of its start.
    pub start_time: Option<SystemTime>,
    /// The time until the answer or the error.
    pub duration: Option<Duration>,
    /// The HTTP status of the answer.
    pub status_code: Option<i32>,
    /// The reason of a failure.
    pub error: Option<String>,
}

impl DeliveryAttempt {
    fn from_message(message: proto::DeliveryAttempt) -> Self {
        Self {
            number: message.number,
            start_time: from_time(message.start_time),
            duration: from_duration(message.duration),
            status_code: message.status_code,
            error: message.error,
        }
    }
}

/// One webhook, for one event of one operation.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Delivery {
    /// The `webhook-id` of every attempt.
    pub id: String,
    /// The operation.
    pub operation_id: String,
    /// The revision of the operation after the event.
    pub revision: i64,
    /// The type of the event.
    pub event_type: String,
    /// The URL of the receiver.
    pub callback_url: String,
    /// The present status.
    pub status: DeliveryStatus,
    /// The time of the event.
    pub create_time: Option<SystemTime>,
    /// The time of the next attempt.
    pub next_attempt_time: Option<SystemTime>,
    /// The time at which the delivery was settled.
    pub settle_time: Option<SystemTime>,
    /// The attempts so far.
    pub attempts: Vec<DeliveryAttempt>,
}

impl Delivery {
    fn from_message(message: proto::Delivery) -> Self {
        Self {
            id: message.id,
            operation_id: message.operation_id,
            revision: message.revision,
            event_type: message.event_type,
            callback_url: message.callback_url,
            status: DeliveryStatus::from_number(message.status),
            create_time: from_time(message.create_time),
            next_attempt_time: from_time(message.next_attempt_time),
            settle_time: from_time(message.settle_time),
            attempts: message.attempts.into_iter().map(DeliveryAttempt::from_message).collect(),
        }
    }
}

call! {
    /// The rotation of your signing secret.
    RotateSigningSecret, RotateSigningSecretRequest
}

setters! {
    RotateSigningSecret {
        /// Set the id that makes the call repeatable over a restart of the program.
        request_id: String;
    }
}

answer!(RotateSigningSecret, SigningSecrets, |this, answer| {
    SigningSecrets::from_messages(answer.current, answer.previous)
});

call! {
    /// Another delivery of a settled webhook.
    Redeliver, RedeliverWebhookRequest
}

setters! {
    Redeliver {
        /// Set the id that makes the call repeatable over a restart of the program.
        request_id: String;
    }
}

answer!(Redeliver, Delivery, |this, answer| Delivery::from_message(
    answer.delivery.unwrap_or_default()
));

/// A selection of deliveries that match every filter; by default all.
#[must_use = "deliveries are read by their `items`"]
#[derive(Debug)]
pub struct Deliveries {
    client: Client,
    request: proto::ListDeliveriesRequest,
}

impl Deliveries {
    /// Select those of one operation.
    pub fn operation_id(mut self, id: impl Into<String>) -> Self {
        self.request.operation_id = Some(id.into());
        self
    }

    /// Select these statuses.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = DeliveryStatus>) -> Self {
        self.request.statuses = statuses.into_iter().map(DeliveryStatus::number).collect();
        self
    }

    /// Set the number of deliveries per call: 50 by default, at most 100.
    pub fn page_size(mut self, size: i32) -> Self {
        self.request.page_size = size;
        self
    }

    /// Return the deliveries, newest first, over all pages.
    ///
    /// A rate limit refuses the first page, and delays each of the others for up to 5 minutes.
    pub fn items(self) -> Items<Delivery> {
        Items::of_pages(move |token| {
            let client = self.client.clone();
            let request =
                proto::ListDeliveriesRequest { page_token: token, ..self.request.clone() };
            async move {
                let page = client.send(request, Duration::ZERO).await?;
                let deliveries = page.deliveries.into_iter().map(Delivery::from_message).collect();
                Ok((deliveries, page.next_page_token))
            }
        })
    }
}

impl Client {
    /// Return the secrets that sign your webhooks. Your first operation with a callback URL creates
    /// the secret, and so does a rotation.
    pub async fn signing_secrets(&self) -> Result<SigningSecrets> {
        let answer = self.send(proto::GetSigningSecretRequest {}, Duration::ZERO).await?;
        Ok(SigningSecrets::from_messages(answer.current, answer.previous))
    }

    /// Create a secret that replaces the current one; for 24 hours both sign.
    pub fn rotate_signing_secret(&self) -> RotateSigningSecret {
        RotateSigningSecret::new(self, proto::RotateSigningSecretRequest::default())
    }

    /// Select webhooks.
    pub fn deliveries(&self) -> Deliveries {
        let request = proto::ListDeliveriesRequest::default();
        Deliveries { client: self.clone(), request }
    }

    /// Send a settled webhook again, with the same id.
    pub fn redeliver(&self, delivery_id: impl Into<String>) -> Redeliver {
        let delivery_id = delivery_id.into();
        let request = proto::RedeliverWebhookRequest { delivery_id, ..Default::default() };
        Redeliver::new(self, request)
    }

    /// Send one test webhook to a URL at once, and return the attempt.
    pub async fn send_test_webhook(&self, url: impl Into<String>) -> Result<DeliveryAttempt> {
        let request = proto::SendTestWebhookRequest { callback_url: url.into() };
        let answer = self.send(request, Duration::ZERO).await?;
        Ok(DeliveryAttempt::from_message(answer.attempt.unwrap_or_default()))
    }
}
