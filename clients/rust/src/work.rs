//! The work on one operation, as a handler sees it.

use std::{fmt, sync::Arc};

use tokio_util::sync::CancellationToken;

use crate::{
    client::Client,
    error::{Error, Result, ValueError},
    held::PackedReport,
    operation::Operation,
    payload::IntoPayload,
    progress_stream::Hold,
    signals::Signals,
};

/// A message that is too large for gRPC would end the reports of all operations on the stream.
const MAX_CHECKPOINT_BYTES: usize = 65_536;
const MAX_TYPE_URL_BYTES: usize = 2_048;
const MAX_MESSAGE_LENGTH: usize = 65_536;

/// One operation in the hands of a handler.
///
/// Its methods report on the progress stream that all work of a client shares, and do not wait for
/// an answer. Clones stand for the same work.
#[derive(Clone)]
pub struct Work {
    inner: Arc<Inner>,
}

struct Inner {
    operation: Operation,
    signals: Arc<Signals>,
    hold: Hold,
}

/// A report about the work; an empty one only renews the lease.
///
/// ```no_run
/// # fn report(work: &milepost::Work) -> Result<(), milepost::Error> {
/// use milepost::Report;
/// use serde_json::json;
///
/// work.report(Report::new().progress(0.4).message("encoding").checkpoint(json!({"frame": 400})))?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
#[must_use = "a report is sent by `Work::report`"]
pub struct Report {
    report: PackedReport,
    problem: Option<ValueError>,
}

impl Report {
    /// Return an empty report.
    pub fn new() -> Self {
        Self::default()
    }

    /// Set the completed share of the work, from 0.0 to 1.0.
    pub fn progress(mut self, share: f64) -> Self {
        self.report.progress = Some(share);
        self
    }

    /// Describe the present step, in at most 1,000 characters.
    pub fn message(mut self, message: impl Into<String>) -> Self {
        let message = message.into();
        if message.chars().nth(MAX_MESSAGE_LENGTH).is_some() {
            self.problem = Some(ValueError(format!(
                "the message has more than {MAX_MESSAGE_LENGTH} characters"
            )));
        }
        self.report.message = Some(message);
        self
    }

    /// Save the state of the work for the next attempt: JSON or a message of at most 65,536 bytes.
    pub fn checkpoint(mut self, checkpoint: impl IntoPayload) -> Self {
        match checkpoint.into_any() {
            Ok(Some(packed)) if packed.value.len() > MAX_CHECKPOINT_BYTES => {
                let problem = format!("the checkpoint has more than {MAX_CHECKPOINT_BYTES} bytes");
                self.problem = Some(ValueError(problem));
            }
            Ok(Some(packed)) if packed.type_url.len() > MAX_TYPE_URL_BYTES => {
                let problem = format!("the type_url has more than {MAX_TYPE_URL_BYTES} bytes");
                self.problem = Some(ValueError(problem));
            }
            Ok(packed) => self.report.checkpoint = packed,
            Err(problem) => self.problem = Some(problem),
        }
        self
    }
}

impl Work {
    /// Hold the operation on the progress stream of the client.
    pub(crate) fn new(client: &Client, operation: Operation) -> Self {
        let signals = Arc::new(Signals::default());
        if operation.cancel_request_time.is_some() {
            signals.request_cancel();
        }
        let hold = client.progress().hold(&operation, signals.clone());
        Self { inner: Arc::new(Inner { operation, signals, hold }) }
    }

    /// Return the operation as it was claimed. Its `checkpoint` is that of the earlier attempt.
    #[must_use]
    pub fn operation(&self) -> &Operation {
        &self.inner.operation
    }

    /// Report the completed share of the work, from 0.0 to 1.0, and the present step.
    ///
    /// # Errors
    ///
    /// That of an earlier report that was refused, such as `ProgressDecrease`; `Cancelled`,
    /// `StaleAttempt` or `OperationExpired` if the work must stop.
    pub fn progress(&self, share: f64, message: impl Into<String>) -> Result<()> {
        self.report(Report::new().progress(share).message(message))
    }

    /// Save the state of the work for the next attempt: JSON or a message of at most 65,536 bytes.
    /// It is stored once [`flush`](Self::flush) has returned. The errors are those of
    /// [`progress`](Self::progress).
    pub fn save_checkpoint(&self, checkpoint: impl IntoPayload) -> Result<()> {
        self.report(Report::new().checkpoint(checkpoint))
    }

    /// Report progress, a message and a checkpoint, which are stored together. The errors are those
    /// of [`progress`](Self::progress).
    pub fn report(&self, report: Report) -> Result<()> {
        match report.problem {
            Some(problem) => Err(problem.into()),
            None => self.inner.hold.report(report.report),
        }
    }

    /// Wait until the service has stored all reports so far, which takes up to a second.
    pub async fn flush(&self) -> Result<()> {
        self.inner.hold.flush().await
    }

    /// Wait until the handler must stop, and return the reason: `Cancelled`, `OperationExpired`,
    /// `StaleAttempt` (the lease is lost, or another worker has the operation), or `WorkerStopped`.
    ///
    /// A handler that goes on for 5 s all the same is dropped at its next `await`.
    pub async fn stopped(&self) -> Error {
        self.inner.signals.stop_token().cancelled().await;
        self.stop_reason().unwrap_or(Error::WorkerStopped)
    }

    /// Return the reason why the handler must stop; None if it may go on.
    #[must_use]
    pub fn stop_reason(&self) -> Option<Error> {
        self.inner.signals.reason().cloned()
    }

    /// Return a token that is cancelled when the handler must stop.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.inner.signals.stop_token().child_token()
    }

    /// Return a token that is cancelled when a cancel with a grace is requested.
    ///
    /// The handler may then clean up and return [`Failure::cancel_acknowledged`], or go on and end
    /// its work. At the end of the grace it must stop.
    ///
    /// [`Failure::cancel_acknowledged`]: crate::Failure::cancel_acknowledged
    #[must_use]
    pub fn cancel_requested(&self) -> CancellationToken {
        self.inner.signals.cancel_requested().child_token()
    }

    pub(crate) fn signals(&self) -> &Signals {
        &self.inner.signals
    }

    pub(crate) fn hold(&self) -> &Hold {
        &self.inner.hold
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operation = self.operation();
        write!(formatter, "Work({}, attempt {})", operation.id, operation.attempt)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    /// What the service or gRPC refuses would end the reports of all operations on the stream.
    #[test]
    fn large_reports_are_refused() {
        let packed = |type_url: usize, value: usize| Any {
            type_url: "x".repeat(type_url),
            value: vec![0; value],
        };
        for (report, is_refused) in [
            (Report::new().checkpoint(packed(MAX_TYPE_URL_BYTES, MAX_CHECKPOINT_BYTES)), false),
            (Report::new().checkpoint(packed(MAX_TYPE_URL_BYTES + 1, 0)), true),
            (Report::new().checkpoint(packed(0, MAX_CHECKPOINT_BYTES + 1)), true),
            (Report::new().message("ü".repeat(MAX_MESSAGE_LENGTH)), false),
            (Report::new().message("ü".repeat(MAX_MESSAGE_LENGTH + 1)), true),
        ] {
            assert_eq!(report.problem.is_some(), is_refused);
        }
    }
}
