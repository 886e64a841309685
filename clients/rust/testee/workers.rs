//! The commands of workers.

use std::sync::{Arc, Mutex, PoisonError};

use milepost::{Failure, OperationError, Report, Work, Worker};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    Answer, Problem, Testee,
    arguments::{Argument, Command, Special},
    callers::{client, target, with_arguments},
    output,
};

pub(crate) async fn claim(testee: &Testee, command: &Command) -> Answer {
    let client = client(testee, command)?;
    let mut call = client.claim(command.texts("functions").unwrap_or_default());
    with_arguments!(call, command,
        max_operations: command.small("max_operations"),
        lease: command.duration("lease")?,
        worker: command.text("worker"),
        timeout: command.duration("timeout")?,
    );
    let operations = call.await?;
    Ok(json!({"operations": operations.iter().map(output::operation).collect::<Vec<_>>()}))
}

pub(crate) async fn start(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.start(id);
    with_arguments!(call, command,
        worker: command.text("worker"),
        progress: command.number("progress"),
        expected_revision: command.integer("expected_revision"),
        request_id: command.text("request_id"),
    );
    Ok(output::operation(&call.await?))
}

/// Apply the arguments that all writes share, and return the answer.
macro_rules! write {
    ($call:ident, $command:ident) => {{
        with_arguments!($call, $command,
            attempt: $command.small("attempt"),
            expected_revision: $command.integer("expected_revision"),
            request_id: $command.text("request_id"),
        );
        Ok(output::operation(&$call.await?))
    }};
}

pub(crate) async fn update_progress(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.update_progress(id);
    with_arguments!(call, command,
        progress: command.number("progress"),
        message: command.text("message"),
        checkpoint: command.value("checkpoint")?,
    );
    write!(call, command)
}

pub(crate) async fn complete(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.complete(id, command.value("result")?);
    write!(call, command)
}

pub(crate) async fn fail(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let errors = command.get("errors").and_then(Value::as_array).cloned().unwrap_or_default();
    let errors: Vec<OperationError> = errors.iter().map(error_of).collect();
    let mut call = client.fail(id, errors).retryable(command.flag("retryable"));
    with_arguments!(call, command, retry_delay: command.duration("retry_delay")?);
    write!(call, command)
}

fn error_of(value: &Value) -> OperationError {
    let text = |name: &str| value[name].as_str().unwrap_or_default();
    let mut error = OperationError::new(text("code"), text("message"));
    error.source = value["source"].as_str().map(str::to_owned);
    error.details = value["details"].as_object().cloned();
    error
}

pub(crate) async fn release(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.release(id);
    with_arguments!(call, command,
        delay: command.duration("delay")?,
        reason: command.text("reason"),
    );
    write!(call, command)
}

pub(crate) async fn acknowledge(testee: &Testee, command: &Command) -> Answer {
    let (client, id) = target(testee, command)?;
    let mut call = client.acknowledge_cancellation(id);
    write!(call, command)
}

type End = Result<Option<Argument>, Failure>;

/// A running worker, whose handlers wait for commands.
pub(crate) struct Running {
    stop: CancellationToken,
    begun: tokio::sync::Mutex<mpsc::UnboundedReceiver<Arc<Current>>>,
    ended: watch::Receiver<Option<Result<(), milepost::Error>>>,
}

/// The work of one handler.
pub(crate) struct Current {
    work: Work,
    end: Mutex<Option<oneshot::Sender<End>>>,
}

impl Current {
    fn end(&self, end: End) -> Answer {
        let sender = self.end.lock().unwrap_or_else(PoisonError::into_inner).take();
        match sender.map(|sender| sender.send(end)) {
            Some(Ok(())) => Ok(json!({})),
            _ => Err(Problem::Other("the work has ended".to_owned())),
        }
    }
}

pub(crate) fn worker_start(testee: &Testee, command: &Command) -> Answer {
    let client = client(testee, command)?;
    let (begin, works) = mpsc::unbounded_channel();
    let mut builder = Worker::builder(&client);
    for function in command.texts("functions").unwrap_or_default() {
        let begin = begin.clone();
        builder = builder.handle(function, move |work| handle(work, begin.clone()));
    }
    with_arguments!(builder, command,
        concurrency: command.integer("concurrency").and_then(|count| count.try_into().ok()),
        name: command.text("name"),
        lease: command.duration("lease")?,
        grace: command.duration("grace")?,
    );
    let worker = builder.build()?;
    let stop = CancellationToken::new();
    let (end, ended) = watch::channel(None);
    let stopped = stop.clone().cancelled_owned();
    tokio::spawn(async move {
        let result = worker.run(stopped).await;
        end.send_replace(Some(result));
    });
    let running = Running { stop, begun: works.into(), ended };
    Ok(json!({"worker": testee.workers.put(Arc::new(running))}))
}

/// Wait for the command that ends the work, or for the reason to stop.
async fn handle(work: Work, begin: mpsc::UnboundedSender<Arc<Current>>) -> End {
    let (sender, end) = oneshot::channel();
    let current = Arc::new(Current { work: work.clone(), end: Mutex::new(Some(sender)) });
    let _ = begin.send(current); // the testee may be gone
    tokio::select! {
        end = end => end.unwrap_or(Ok(None)),
        reason = work.stopped() => Err(reason.into()),
    }
}

pub(crate) async fn worker_next(testee: &Testee, command: &Command) -> Answer {
    let running = testee.workers.get(&command.required("worker")?)?;
    let mut ended = running.ended.clone();
    let mut begun = running.begun.lock().await;
    let current = tokio::select! {
        current = begun.recv() => current,
        _ = ended.wait_for(Option::is_some) => None,
    };
    let Some(current) = current else {
        let end = ended.borrow().clone();
        return match end {
            Some(Err(error)) => Err(error.into()),
            _ => Err(Problem::Other("the worker has ended".to_owned())),
        };
    };
    let operation = current.work.operation();
    let mut answer = json!({"operation": output::operation(operation)});
    if let Some(checkpoint) = &operation.checkpoint {
        answer["checkpoint"] = output::payload(checkpoint);
    }
    answer["work"] = testee.works.put(current.clone()).into();
    Ok(answer)
}

pub(crate) async fn worker_stop(testee: &Testee, command: &Command) -> Answer {
    let running = testee.workers.get(&command.required("worker")?)?;
    running.stop.cancel();
    let mut ended = running.ended.clone();
    let end = ended.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
    match end {
        Some(Err(error)) => Err(error.into()),
        _ => Ok(json!({})),
    }
}

fn current(testee: &Testee, command: &Command) -> Result<Arc<Current>, Problem> {
    testee.works.get(&command.required("work")?)
}

pub(crate) fn work_progress(testee: &Testee, command: &Command) -> Answer {
    let mut report = Report::new();
    with_arguments!(report, command,
        progress: command.number("progress"),
        message: command.text("message"),
        checkpoint: command.value("checkpoint")?,
    );
    current(testee, command)?.work.report(report)?;
    Ok(json!({}))
}

pub(crate) fn work_state(testee: &Testee, command: &Command) -> Answer {
    let current = current(testee, command)?;
    let stopped = current.work.stop_reason().map(|reason| output::class(&reason));
    let is_requested = current.work.cancel_requested().is_cancelled();
    Ok(json!({"stopped": stopped, "cancel_requested": is_requested}))
}

pub(crate) fn work_return(testee: &Testee, command: &Command) -> Answer {
    current(testee, command)?.end(Ok(command.value("result")?))
}

pub(crate) fn work_throw(testee: &Testee, command: &Command) -> Answer {
    let message = command.text("message").unwrap_or_default();
    let mut failure = match command.text("kind").as_deref() {
        Some("permanent") => Failure::permanent("PermanentFailure", message),
        Some("retry_later") => {
            Failure::retry_later(command.duration("delay")?.unwrap_or_default(), message)
        }
        Some("acknowledge") => Failure::cancel_acknowledged(),
        _ => Failure::new(message),
    };
    with_arguments!(failure, command,
        code: command.text("code"),
        details: command.present("details").map(|value| Special::of(value.clone())).transpose()?,
    );
    current(testee, command)?.end(Err(failure))
}
