//! The work of one operation by its id.

use std::{error::Error as StdError, fmt, future::Future, time::Duration};

use crate::{
    client::Client, error::Error, execution::Execution, failure::Failure, handler::erased,
    payload::IntoPayload, work::Work, workers::Start,
};

/// How long the end of the operation is tried again.
const END_TIMEOUT: Duration = Duration::from_secs(300);

/// The work of one operation, which is started by its id; see [`Client::perform`].
#[must_use = "the work begins when `with` is awaited"]
#[derive(Debug)]
pub struct Perform {
    start: Start,
}

/// Why the operation was not completed.
#[derive(Debug)]
#[non_exhaustive]
pub enum PerformError {
    /// The handler has failed, and the operation has ended with it.
    Failed(Failure),
    /// The operation was not started, was taken away, or its end was refused.
    Refused(Error),
}

impl fmt::Display for PerformError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(failure) => failure.fmt(formatter),
            Self::Refused(error) => error.fmt(formatter),
        }
    }
}

impl StdError for PerformError {}

impl From<Error> for PerformError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

impl Client {
    /// Do the work of one operation by its id, and end it with the outcome of the handler.
    ///
    /// ```no_run
    /// # async fn work(client: milepost::Client, id: &str) -> Result<(), milepost::PerformError> {
    /// client
    ///     .perform(id)
    ///     .with(|work| async move {
    ///         work.progress(0.5, "halfway")?;
    ///         Ok::<_, milepost::Failure>("done")
    ///     })
    ///     .await
    /// # }
    /// ```
    pub fn perform(&self, id: impl Into<String>) -> Perform {
        Perform { start: self.start(id) }
    }
}

impl Perform {
    /// Set the name of the worker, shown to people.
    pub fn worker(mut self, name: impl Into<String>) -> Self {
        self.start = self.start.worker(name);
        self
    }

    /// Set the revision that the operation must have.
    pub fn expected_revision(mut self, revision: i64) -> Self {
        self.start = self.start.expected_revision(revision);
        self
    }

    /// Start the operation, call the handler, and end the operation.
    ///
    /// A failure of the handler is final, unless it chooses another end: your program decides about
    /// another attempt. While the service is unavailable, the end is tried again for 5 minutes. If
    /// this future is dropped, the operation is released.
    pub async fn with<H, F, R, E>(self, handler: H) -> Result<(), PerformError>
    where
        H: Fn(Work) -> F + Send + Sync + 'static,
        F: Future<Output = Result<R, E>> + Send + 'static,
        R: IntoPayload,
        E: Into<Failure>,
    {
        let client = self.start.client().clone();
        let operation = self.start.await?;
        let mut execution = Execution::new(&client, operation);
        match execution.call_and_end(&erased(handler), Some(END_TIMEOUT)).await? {
            Some(failure) => Err(PerformError::Failed(failure)),
            None => Ok(()),
        }
    }
}
