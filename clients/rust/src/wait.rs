//! Waiting for the end of an operation.

use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::{
    backoff::{Backoff, MAX_LONG_PAUSE},
    client::Client,
    error::{Kind, Result},
    operation::{Operation, to_duration},
    proto,
};

/// Maximum of one call of a wait. The next one follows at once.
const MAX_WAIT: Duration = Duration::from_secs(50);

/// The time that is left of a timeout, or forever.
struct Remaining {
    begin: Instant,
    timeout: Option<Duration>,
}

impl Remaining {
    fn left(&self) -> Duration {
        self.timeout.map_or(Duration::MAX, |timeout| timeout.saturating_sub(self.begin.elapsed()))
    }
}

impl Client {
    /// Return the operation at its end, or as it stands when the timeout has passed. A timeout of
    /// None waits for as long as it takes.
    ///
    /// A limit that is reached meanwhile only delays the next call, until the service allows it.
    pub async fn wait(
        &self,
        id: impl Into<String>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Operation> {
        let id = id.into();
        let remaining = Remaining { begin: Instant::now(), timeout: timeout.into() };
        let mut backoff = Backoff::new(MAX_LONG_PAUSE);
        let mut asked = remaining.left().min(MAX_WAIT);
        let mut asking = Instant::now();
        let mut operation = self.wait_once(&id, asked).await?;
        while !operation.status.is_terminal() && !remaining.left().is_zero() {
            if asking.elapsed() < asked / 2 {
                // An early answer: of a service that stops, perhaps.
                tokio::time::sleep(backoff.pause().min(remaining.left())).await;
            }
            asked = remaining.left().min(MAX_WAIT);
            asking = Instant::now();
            match self.wait_once(&id, asked).await {
                Ok(latest) => operation = latest,
                Err(error) if error.is(Kind::LimitReached) => {
                    tokio::time::sleep(backoff.pause_after(&error).min(remaining.left())).await;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(operation)
    }

    async fn wait_once(&self, id: &str, timeout: Duration) -> Result<Operation> {
        let request = proto::WaitOperationRequest {
            operation_id: id.to_owned(),
            timeout: Some(to_duration(timeout)),
        };
        let answer = self.send(request, timeout).await?;
        Ok(Operation::from_message(answer.operation.unwrap_or_default()))
    }

    /// Wait for the end of an operation, and return its JSON result as a value of your own type.
    /// Without a result it is that of JSON null. [`completed`](Self::completed) returns results
    /// that are other messages.
    ///
    /// # Errors
    ///
    /// `OperationFailed` and `OperationCancelled`, with the operation, or `StillRunning` when the
    /// timeout has passed.
    pub async fn result<T: DeserializeOwned>(
        &self,
        id: impl Into<String>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<T> {
        self.completed(id, timeout).await?.decode_result()
    }

    /// Wait for the end of an operation, and return it if it was completed; the errors are those of
    /// [`result`](Self::result).
    pub async fn completed(
        &self,
        id: impl Into<String>,
        timeout: impl Into<Option<Duration>>,
    ) -> Result<Operation> {
        self.wait(id, timeout).await?.completed()
    }
}
