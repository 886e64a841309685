//! The calls of a worker of your own. A [`Worker`](crate::Worker) does all this by itself.

use std::time::Duration;

use prost_types::Any;

use crate::{
    answer::{answer, call, setters},
    client::Client,
    error::Result,
    held::PackedReport,
    operation::{Operation, OperationError, to_duration},
    payload::IntoPayload,
    proto,
};

/// Maximum of the time that a claim waits.
const MAX_TIMEOUT: Duration = Duration::from_secs(86_400);

call! {
    /// A claim of pending operations, with a lease.
    Claim, ClaimOperationsRequest
}

setters! {
    Claim {
        /// Set the time after which another worker gets an operation of a dead worker: 30 s by
        /// default, from 5 s to 1 h.
        lease: Duration => to_duration;
        /// Set the name of the worker, shown to people.
        worker: String;
    }
}

impl Claim {
    /// Bound the number of operations: 1 by default, at most 100.
    pub fn max_operations(mut self, count: i32) -> Self {
        self.request.max_operations = count;
        self
    }

    /// Set how long the call waits for work.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.waiting = timeout.min(MAX_TIMEOUT);
        self.request.timeout = Some(to_duration(self.waiting));
        self
    }
}

answer!(Claim, Vec<Operation>, |this, answer| Operation::from_messages(answer.operations));

call! {
    /// The start of a pending operation by its id, without a lease.
    Start, StartOperationRequest
}

setters! {
    Start {
        /// Set the first progress, between 0.0 and 1.0.
        progress: f64;
        /// Set the name of the worker, shown to people.
        worker: String;
        /// Set the revision that the operation must have.
        expected_revision: i64;
        /// Set the id that makes the call repeatable over a restart of the program.
        request_id: String;
    }
}

call! {
    /// A report of progress. An empty one renews the lease.
    UpdateProgress, UpdateProgressRequest
}

setters! {
    UpdateProgress {
        /// Set the completed share of the work, between 0.0 and 1.0.
        progress: f64;
        /// Describe the present step, in at most 1,000 characters.
        message: String;
    }
}

impl UpdateProgress {
    /// Save the state of the work for the next attempt: at most 65,536 bytes.
    pub fn checkpoint(mut self, checkpoint: impl IntoPayload) -> Self {
        match checkpoint.into_any() {
            Ok(packed) => self.request.checkpoint = packed,
            Err(problem) => self.problem = Some(problem),
        }
        self
    }
}

call! {
    /// The success of an operation.
    Complete, CompleteOperationRequest
}

call! {
    /// The end of an attempt without success.
    Fail, FailOperationRequest
}

setters! {
    Fail {
        /// Set the pause before the next attempt, instead of that of the retry policy.
        retry_delay: Duration => to_duration;
    }
}

impl Fail {
    /// Say that another attempt may succeed.
    pub fn retryable(mut self, is_retryable: bool) -> Self {
        self.request.retryable = is_retryable;
        self
    }
}

call! {
    /// The release of an operation: another worker gets it, and the attempt has not failed.
    Release, ReleaseOperationRequest
}

setters! {
    Release {
        /// Set the time until the operation can be claimed again, at most 1 h.
        delay: Duration => to_duration;
        /// Set the reason, which is stored with the event, at most 1,000 characters.
        reason: String;
    }
}

call! {
    /// The end of an operation whose cancel was requested: its worker has stopped.
    AcknowledgeCancellation, AcknowledgeCancellationRequest
}

/// Setters and answers of the writes of a worker.
macro_rules! writes {
    ($($call:ident),+) => {
        $(setters! {
            $call {
                /// Set the attempt of the claim, which must be the present one.
                attempt: i32;
                /// Set the revision that the operation must have.
                expected_revision: i64;
                /// Set the id that makes the call repeatable over a restart of the program.
                request_id: String;
            }
        }

        answer!($call, Operation, |this, answer| Operation::from_answer(
            answer.operation,
            answer.replayed
        ));)+
    };
}

writes!(UpdateProgress, Complete, Fail, Release, AcknowledgeCancellation);

answer!(Start, Operation, |this, answer| Operation::from_answer(answer.operation, answer.replayed));

impl Client {
    /// Claim pending operations of 1 to 100 functions.
    pub fn claim<T: Into<String>>(&self, functions: impl IntoIterator<Item = T>) -> Claim {
        let functions = functions.into_iter().map(Into::into).collect();
        let request = proto::ClaimOperationsRequest { functions, ..Default::default() };
        Claim::new(self, request).timeout(Duration::ZERO)
    }

    /// Start a pending operation by its id, without a lease.
    pub fn start(&self, id: impl Into<String>) -> Start {
        let operation_id = id.into();
        Start::new(self, proto::StartOperationRequest { operation_id, ..Default::default() })
    }

    /// Report progress of an operation.
    pub fn update_progress(&self, id: impl Into<String>) -> UpdateProgress {
        let operation_id = id.into();
        let request = proto::UpdateProgressRequest { operation_id, ..Default::default() };
        UpdateProgress::new(self, request)
    }

    /// Complete an operation. The result is `()`, JSON or a message of at most 1 MiB.
    pub fn complete(&self, id: impl Into<String>, result: impl IntoPayload) -> Complete {
        let (result, problem) = match result.into_any() {
            Ok(packed) => (packed, None),
            Err(problem) => (None, Some(problem)),
        };
        Complete { problem, ..self.complete_with(id.into(), result) }
    }

    /// Store the report of a worker by a call.
    pub(crate) async fn store(&self, operation: &Operation, report: PackedReport) -> Result<()> {
        let request = proto::UpdateProgressRequest {
            operation_id: operation.id.clone(),
            attempt: Some(operation.attempt),
            progress: report.progress,
            message: report.message,
            checkpoint: report.checkpoint,
            ..Default::default()
        };
        self.send(request, Duration::ZERO).await.map(drop)
    }

    pub(crate) fn complete_with(&self, operation_id: String, result: Option<Any>) -> Complete {
        let request =
            proto::CompleteOperationRequest { operation_id, result, ..Default::default() };
        Complete::new(self, request)
    }

    /// End an attempt of an operation with at least one error: the operation fails, or waits for
    /// the next attempt.
    pub fn fail(
        &self,
        id: impl Into<String>,
        errors: impl IntoIterator<Item = OperationError>,
    ) -> Fail {
        let mut request =
            proto::FailOperationRequest { operation_id: id.into(), ..Default::default() };
        let errors: std::result::Result<_, _> =
            errors.into_iter().map(|error| error.to_message()).collect();
        match errors {
            Ok(errors) => {
                request.errors = errors;
                Fail::new(self, request)
            }
            Err(problem) => Fail { problem: Some(problem), ..Fail::new(self, request) },
        }
    }

    /// Give an operation back.
    pub fn release(&self, id: impl Into<String>) -> Release {
        let operation_id = id.into();
        Release::new(self, proto::ReleaseOperationRequest { operation_id, ..Default::default() })
    }

    /// End an operation whose cancel was requested.
    pub fn acknowledge_cancellation(&self, id: impl Into<String>) -> AcknowledgeCancellation {
        let operation_id = id.into();
        let request = proto::AcknowledgeCancellationRequest { operation_id, ..Default::default() };
        AcknowledgeCancellation::new(self, request)
    }
}
