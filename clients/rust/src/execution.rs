//! The execution of a handler for one claimed operation: whatever happens ends it alone.

use std::{future::Future, time::Duration};

use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::{
    calls::{late, new_request_id},
    client::Client,
    error::{Error, Kind, Result},
    failure::{End, Failure},
    handler::{Handler, Outcome},
    held::PackedReport,
    operation::Operation,
    proto,
    until_final::until_final,
    work::Work,
};

/// How long a handler may occupy its worker after its operation was taken away.
const MAX_PATIENCE: Duration = Duration::from_secs(5);
/// Tries of an end without a bound last no longer than any operation.
const FOREVER: Duration = Duration::from_secs(366 * 86_400);
/// How long handlers may go on after the grace, when they were asked to stop.
pub(crate) const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// One operation in the hands of a worker, until its handler has ended or is given up.
pub(crate) struct Execution {
    client: Client,
    work: Work,
    /// Cancelled when the end of the operation is not to be tried any more.
    end_now: CancellationToken,
    /// How long the end of the operation is tried again; None without a bound.
    end_timeout: Option<Duration>,
    is_ended: bool,
}

/// The part of an execution that its worker keeps.
#[derive(Clone)]
pub(crate) struct Handle {
    work: Work,
    end_now: CancellationToken,
}

impl Handle {
    /// Ask the handler to stop, because the worker does.
    pub(crate) fn leave(&self) {
        self.work.signals().stop(Error::WorkerStopped);
    }

    /// Give up an end that is still tried again: the operation is released.
    pub(crate) fn end_now(&self) {
        self.end_now.cancel();
    }

    pub(crate) fn is_cancel_requested(&self) -> bool {
        self.work.signals().cancel_requested().is_cancelled()
    }
}

/// Why the end of an operation was not stored.
enum Unfinished {
    /// Nothing is left to do: the operation was taken away.
    Over(Error),
    /// The worker cannot wait any longer.
    Left,
    /// The service has refused the end for good.
    Refused(Error),
}

type Ended<T> = std::result::Result<T, Unfinished>;

impl Execution {
    pub(crate) fn new(client: &Client, operation: Operation) -> Self {
        Self {
            client: client.clone(),
            work: Work::new(client, operation),
            end_now: CancellationToken::new(),
            end_timeout: None,
            is_ended: false,
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        Handle { work: self.work.clone(), end_now: self.end_now.clone() }
    }

    fn id(&self) -> &str {
        &self.work.operation().id
    }

    /// Call the handler and end the operation, whatever happens.
    pub(crate) async fn run(mut self, handler: &Handler) {
        let id = self.id().to_owned();
        if let Err(error) = self.call_and_end(handler, None).await {
            tracing::error!(operation_id = id, %error, "the operation is left unfinished");
        }
    }

    /// Call the handler and end the operation; return the failure of the handler, if it has failed.
    ///
    /// With a bound of the tries, the program that has started the operation decides about another
    /// attempt.
    pub(crate) async fn call_and_end(
        &mut self,
        handler: &Handler,
        end_timeout: Option<Duration>,
    ) -> Result<Option<Failure>> {
        let is_block = end_timeout.is_some();
        self.end_timeout = end_timeout;
        let outcome = self.call(handler).await;
        let signals = self.work.signals();
        let ended = match outcome {
            _ if signals.is_over() => Err(Unfinished::Over(self.reason())),
            None => Err(Unfinished::Left),
            Some(Err(_)) if signals.reason().is_some() => Err(Unfinished::Left),
            Some(Err(failure)) if is_block => self.fail(failure.made_final()).await,
            Some(outcome) => self.end(outcome).await,
        };
        let result = match ended {
            Ok(failure) => Ok(failure),
            Err(Unfinished::Over(reason)) => {
                tracing::info!(operation_id = self.id(), %reason, "the operation was taken away");
                Err(reason)
            }
            Err(Unfinished::Left) => {
                self.release().await;
                Err(Error::WorkerStopped)
            }
            Err(Unfinished::Refused(error)) => Err(error),
        };
        self.is_ended = true;
        self.work.hold().close();
        match result {
            Err(error) if !is_block && (error.is_over() || error.is(Kind::WorkerStopped)) => {
                Ok(None)
            }
            result => result,
        }
    }

    fn reason(&self) -> Error {
        self.work.stop_reason().unwrap_or(Error::WorkOver)
    }

    /// Return the outcome of the handler, whatever it does; None if it goes on although it must
    /// stop.
    async fn call(&self, handler: &Handler) -> Option<Outcome> {
        let (handler, work) = (handler.clone(), self.work.clone());
        let mut task = AbortOnDrop(tokio::spawn(async move { handler(work).await }));
        let stopped = self.work.signals().stop_token().clone();
        let returned = tokio::select! {
            returned = &mut task.0 => Some(returned),
            () = stopped.cancelled() => timeout(self.patience(), &mut task.0).await.ok(),
        };
        match returned {
            Some(Ok(outcome)) => Some(outcome),
            Some(Err(error)) => Some(Err(match error.try_into_panic() {
                // Kept, because to drop it may panic too.
                Ok(payload) => Failure::from_panic(Box::leak(payload)),
                Err(_) => Failure::new("the runtime has ended the handler"),
            })),
            None => {
                tracing::warn!(
                    operation_id = self.id(),
                    "the handler goes on although it must stop"
                );
                None
            }
        }
    }

    fn patience(&self) -> Duration {
        if self.work.signals().is_over() { MAX_PATIENCE } else { STOP_PATIENCE }
    }

    async fn end(&self, outcome: Outcome) -> Ended<Option<Failure>> {
        match outcome {
            Ok(Ok(result)) => match self.complete(result).await {
                Err(Unfinished::Refused(error)) if error.is_unstorable() => {
                    self.fail(Failure::unstorable(&error)).await
                }
                ended => ended.map(|()| None),
            },
            Ok(Err(problem)) => self.fail(Failure::unstorable(&problem.into())).await,
            Err(failure) => self.fail(failure).await,
        }
    }

    async fn complete(&self, result: Option<prost_types::Any>) -> Ended<()> {
        self.store_last_report().await?;
        let size = result.as_ref().map_or(0, |packed| packed.value.len());
        let request_id = new_request_id();
        self.until_final(size, || {
            self.client
                .complete_with(self.id().to_owned(), result.clone())
                .attempt(self.work.operation().attempt)
                .request_id(&request_id)
                .into_future()
        })
        .await
        .map(drop)
    }

    /// End the attempt because of the failure. One that is refused is replaced by one that says so.
    async fn fail(&self, failure: Failure) -> Ended<Option<Failure>> {
        let is_retried = matches!(failure.end(), End::Retry(_));
        if is_retried && self.work.hold().has_unstored_checkpoint() {
            self.work.hold().send().await; // no earlier one on the stream can replace it then
        }
        self.store_last_report().await?;
        let failure = match failure.end() {
            End::CancelAcknowledged => match self.acknowledge().await? {
                None => return Ok(Some(failure)),
                Some(refusal) => Failure::from(refusal),
            },
            _ => failure,
        };
        tracing::warn!(operation_id = self.id(), error = %failure, "the attempt has failed");
        match self.send_failure(&failure).await {
            Err(Unfinished::Refused(error)) if error.is_unstorable() => {
                self.send_failure(&Failure::refused(&error)).await?;
            }
            ended => ended?,
        }
        Ok(Some(failure))
    }

    async fn send_failure(&self, failure: &Failure) -> Ended<()> {
        let error = failure.to_error().map_err(|error| Unfinished::Refused(error.into()))?;
        let size = error.to_message().map_or(0, |message| prost::Message::encoded_len(&message));
        let request_id = new_request_id();
        self.until_final(size, || {
            let mut call = self
                .client
                .fail(self.id(), [error.clone()])
                .retryable(failure.end() != End::Permanent)
                .attempt(self.work.operation().attempt)
                .request_id(&request_id);
            if let End::Retry(Some(delay)) = failure.end() {
                call = call.retry_delay(delay);
            }
            call.into_future()
        })
        .await
        .map(drop)
    }

    /// Acknowledge the cancel; return the refusal if none was requested.
    async fn acknowledge(&self) -> Ended<Option<Error>> {
        let request_id = new_request_id();
        let acknowledged = self.until_final(0, || {
            self.client
                .acknowledge_cancellation(self.id())
                .attempt(self.work.operation().attempt)
                .request_id(&request_id)
                .into_future()
        });
        match acknowledged.await {
            Ok(_) => Ok(None),
            Err(Unfinished::Refused(error)) if error.is(Kind::CancellationNotRequested) => {
                Ok(Some(error))
            }
            Err(unfinished) => Err(unfinished),
        }
    }

    /// Store the last report by a call if the stream has not: both may use other replicas.
    async fn store_last_report(&self) -> Ended<()> {
        let Some((report, version)) = self.work.hold().last_report() else {
            return Ok(());
        };
        let request = self.update(report);
        match self.until_final(0, || self.client.send(request.clone(), Duration::ZERO)).await {
            Ok(answer) => {
                if answer.operation.is_some_and(|now| now.cancel_request_time.is_some()) {
                    self.work.signals().request_cancel();
                }
                self.work.hold().settle(version);
                Ok(())
            }
            Err(Unfinished::Refused(_)) => Ok(()), // the report may be lost, the end is not
            Err(unfinished) => Err(unfinished),
        }
    }

    fn update(&self, report: PackedReport) -> proto::UpdateProgressRequest {
        proto::UpdateProgressRequest {
            operation_id: self.id().to_owned(),
            request_id: Some(new_request_id()),
            attempt: Some(self.work.operation().attempt),
            progress: report.progress,
            message: report.message,
            checkpoint: report.checkpoint,
            ..Default::default()
        }
    }

    /// Send a write until the service accepts it, or refuses it for good.
    async fn until_final<T, F>(&self, size: usize, send: impl FnMut() -> F) -> Ended<T>
    where
        F: Future<Output = Result<T>>,
    {
        let stopped = async {
            self.work.signals().stop_token().cancelled().await;
            if !self.work.signals().is_over() {
                std::future::pending::<()>().await; // the worker stops: the end may still succeed
            }
        };
        tokio::select! {
            answer = until_final(size, send) => answer.map_err(|error| {
                if error.is_over() { Unfinished::Over(error) } else { Unfinished::Refused(error) }
            }),
            () = stopped => Err(Unfinished::Over(self.reason())),
            () = self.end_now.cancelled() => Err(Unfinished::Left),
            () = tokio::time::sleep(self.end_timeout.unwrap_or(FOREVER)) => {
                Err(Unfinished::Refused(late()))
            }
        }
    }

    /// Give the operation back. Without an answer, its lease runs out.
    async fn release(&self) {
        release(&self.client, &self.work).await;
    }
}

/// Release an operation that is not ended, such as one whose runtime has ended.
impl Drop for Execution {
    fn drop(&mut self) {
        if !self.is_ended {
            let (client, work) = (self.client.clone(), self.work.clone());
            work.signals().stop(Error::WorkerStopped);
            self.client.connection().replicas.io().spawn(async move {
                release(&client, &work).await;
                work.hold().close();
            });
        }
    }
}

/// Release the operation, best effort. A requested cancel is acknowledged instead.
async fn release(client: &Client, work: &Work) {
    let _place = client.releases().acquire().await;
    let left = timeout(STOP_PATIENCE, give_back(client, work)).await;
    let problem = match left {
        Ok(Ok(_)) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => "no answer in time".to_owned(),
    };
    tracing::info!(operation_id = work.operation().id, %problem, "the operation was not released");
}

async fn give_back(client: &Client, work: &Work) -> Result<Operation> {
    let operation = work.operation();
    let (id, attempt, request_id) = (&operation.id, operation.attempt, new_request_id());
    if work.signals().cancel_requested().is_cancelled() {
        let acknowledge = || client.acknowledge_cancellation(id).attempt(attempt);
        return until_final(0, || acknowledge().request_id(&request_id).into_future()).await;
    }
    if work.hold().has_unstored_checkpoint() {
        work.hold().send().await; // no earlier one on the stream can replace it then
        if let Some(report) = work.hold().unstored() {
            let stored = timeout(STOP_PATIENCE / 4, client.store(operation, report)).await;
            if let Ok(Err(error)) = stored {
                tracing::debug!(%error, "the last checkpoint was not stored");
            }
        }
    }
    let release = || client.release(id).attempt(attempt).reason("the worker stops");
    until_final(0, || release().request_id(&request_id).into_future()).await
}

/// A task that ends with its execution.
struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
