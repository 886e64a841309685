//! Workers against a real service.

mod running;
mod service;

use std::{
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use milepost::{
    Any, Client, Error, Failure, Json, Kind, Packed, PerformError, Report, Status, Work, Worker,
    proto,
};
use running::Running;
use serde_json::{Value, json};
use service::{eventually, unique_function, wait};

fn clients() -> (Client, Client) {
    let service = service::shared();
    (service.client("CALLER"), service.client("WORKER"))
}

/// An error whose text cannot be read.
#[derive(Debug)]
struct BadError;

impl fmt::Display for BadError {
    fn fmt(&self, _formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("in Display")
    }
}

impl std::error::Error for BadError {}

/// A value that panics when it is written.
struct BadValue;

impl serde::Serialize for BadValue {
    fn serialize<S: serde::Serializer>(&self, _serializer: S) -> Result<S::Ok, S::Error> {
        panic!("in Serialize")
    }
}

/// A value that panics when it is dropped.
struct BadDrop;

impl Drop for BadDrop {
    fn drop(&mut self) {
        panic!("in Drop")
    }
}

/// Whatever a handler does ends its operation, once, with the reason.
#[tokio::test]
async fn every_handler_ends_its_operation_once() {
    let (alice, client) = clients();
    let prefix = unique_function();
    let mut worker = Worker::builder(&client);
    let mut expected = Vec::new();
    macro_rules! ends {
        ($($name:ident: $handler:expr => $want:expr;)+) => {
            $(let function = format!("{prefix}.{}", stringify!($name));
            let id = alice.create(&function).max_attempts(1).await.expect("an operation").id;
            worker = worker.handle(function, $handler);
            expected.push((stringify!($name), id, $want));)+
        };
    }
    ends! {
        value: async |_: Work| Ok::<_, Failure>(json!({"n": 7})) => "COMPLETED {\"n\":7}";
        null: async |_: Work| Ok::<_, Failure>(Value::Null) => "COMPLETED null";
        nothing: async |_: Work| Ok::<_, Failure>(()) => "COMPLETED";
        text: async |_: Work| Ok::<_, Failure>("text") => "COMPLETED \"text\"";
        message: async |_: Work| Ok::<_, Failure>(Packed(proto::RetryPolicy::default()))
            => "COMPLETED type.googleapis.com/milepost.v1.RetryPolicy";
        error: async |_: Work| Err::<(), _>(Failure::new("broken")) => "FAILED Error: broken";
        typed: async |_: Work| "x".parse::<i32>() => "FAILED ParseIntError: invalid digit";
        sources: async |_: Work| Err::<(), _>(std::io::Error::other("inner"))
            => "FAILED Error: inner";
        permanent: async |_: Work| Err::<(), _>(Failure::permanent("CODEC", "m").source("in"))
            => "FAILED CODEC: m";
        panics: async |_: Work| -> Result<(), Failure> { panic!("no {}", 1) }
            => "FAILED Panic: panic: no 1";
        bad_error: async |_: Work| Err::<(), _>(BadError) => "FAILED Panic: panic: in Display";
        bad_value: async |_: Work| Ok::<_, Failure>(Json(BadValue))
            => "FAILED Panic: panic: in Serialize";
        panics_with_a_number: async |_: Work| -> Result<(), Failure> { std::panic::panic_any(7) }
            => "FAILED Panic: panic: a value without a text";
        panics_with_a_bad_value: async |_: Work| -> Result<(), Failure> {
            std::panic::panic_any(BadDrop)
        } => "FAILED Panic: panic: a value without a text";
        bad_drop: async |_: Work| {
            let _held = BadDrop;
            Ok::<_, Failure>(())
        } => "FAILED Panic: panic: in Drop";
        stops_itself: async |work: Work| {
            work.stop_token().cancel();
            work.cancel_requested().cancel();
            Ok::<_, Failure>("good")
        } => "COMPLETED \"good\"";
        aborts_its_task: async |_: Work| {
            let task = tokio::spawn(std::future::pending::<()>());
            task.abort();
            task.await
        } => "FAILED JoinError: task ";
        stopped_by_name: async |_: Work| Err::<(), _>(Error::WorkerStopped)
            => "FAILED WorkerStopped: ";
        nan: async |_: Work| Ok::<_, Failure>(f64::NAN) => "FAILED UnstorableResult: the result";
        integer: async |_: Work| Ok::<_, Failure>((1_i64 << 53) + 1) => "FAILED UnstorableResult";
        too_large: async |_: Work| Ok::<_, Failure>("x".repeat((1 << 20) + 100))
            => "FAILED UnstorableResult";
        far_too_large: async |_: Work| Ok::<_, Failure>("x".repeat(5 << 20))
            => "FAILED UnstorableResult";
        bad_details: async |_: Work| Err::<(), _>(Failure::new("m").details(("x", f64::NAN)))
            => "FAILED InvalidError: The error was refused";
        long_error: async |_: Work| Err::<(), _>(Failure::new("\0".repeat(20_000)))
            => "FAILED Error: \\x00\\x00";
        not_requested: async |_: Work| Err::<(), _>(Failure::cancel_acknowledged())
            => "FAILED CancellationNotRequested";
    }
    let running = Running::start(worker.concurrency(100).build().expect("a worker"));
    for (name, id, want) in expected {
        let operation = wait(&alice, &id).await;
        let mut found = vec![operation.status.to_string()];
        match &operation.result {
            Some(milepost::Payload::Json(value)) => found.push(value.to_string()),
            Some(milepost::Payload::Message(Any { type_url, .. })) => {
                found.push(type_url.clone());
            }
            _ => {}
        }
        for error in &operation.errors {
            found.push(format!("{}: {}", error.code, error.message));
        }
        let found = found.join(" ");
        let is_exact = operation.errors.is_empty();
        assert!(found.starts_with(want) && (!is_exact || found == want), "{name}: {found:.200}");
        assert_eq!((operation.attempt, operation.errors.len() <= 1), (1, true), "{name}");
    }
    running.stop().await.expect("a good end");
}

/// An error is tried again, and the next attempt gets the checkpoint of the last one.
#[tokio::test]
async fn errors_are_retried_with_the_checkpoint() {
    let (alice, client) = clients();
    let function = unique_function();
    let attempts = Arc::new(Mutex::new(Vec::new()));
    let seen = attempts.clone();
    let handler = move |work: Work| {
        let seen = seen.clone();
        async move {
            let step: u32 = work.operation().decode_checkpoint()?.unwrap_or(0);
            seen.lock().expect("no panic").push((work.operation().attempt, step));
            if step == 2 {
                return Ok(step);
            }
            work.save_checkpoint(step + 1)?;
            Err(Failure::retry_later(Duration::from_millis(1), "not yet"))
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).build().expect("a worker");
    let running = Running::start(worker);
    let id = alice.create(&function).await.expect("an operation").id;
    let operation = wait(&alice, &id).await;
    assert_eq!(operation.decode_result::<u32>().expect("a number"), 2);
    assert_eq!(operation.failed_attempts, 2);
    assert_eq!(*attempts.lock().expect("no panic"), [(1, 0), (2, 1), (3, 2)]);
    running.stop().await.expect("a good end");
}

/// Progress is stored, and a refused report is returned by the next one.
#[tokio::test]
async fn refused_reports_are_returned() {
    let (alice, client) = clients();
    let function = unique_function();
    let caller = alice.clone();
    let handler = move |work: Work| {
        let caller = caller.clone();
        async move {
            for step in 0..100 {
                work.progress(f64::from(step) / 200.0, format!("step {step}"))?;
            }
            work.flush().await?;
            let now = caller.get(&work.operation().id).await?;
            assert_eq!(now.progress_message.as_deref(), Some("step 99"));
            work.report(Report::new().progress(0.1))?;
            assert!(work.flush().await.expect_err("refused").is(Kind::ProgressDecrease));
            let refused = work.report(Report::new().progress(0.6));
            assert!(refused.expect_err("of the last report").is(Kind::ProgressDecrease));
            let large = work.save_checkpoint("x".repeat(70_000));
            assert!(large.expect_err("too large").is(Kind::Value));
            work.progress(0.7, "the last")?;
            Ok::<_, Failure>("good")
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).build().expect("a worker");
    let running = Running::start(worker);
    let id = alice.create(&function).await.expect("an operation").id;
    let operation = wait(&alice, &id).await;
    assert!(operation.errors.is_empty(), "{:?}", operation.errors);
    assert_eq!(operation.progress_message.as_deref(), Some("the last"));
    running.stop().await.expect("a good end");
}

/// A block completes its operation, or fails it for good and returns the failure.
#[tokio::test]
async fn a_block_ends_its_operation() {
    let (alice, client) = clients();
    let id = alice.create("block").await.expect("an operation").id;
    let done = client.perform(&id).worker("block").with(async |work: Work| {
        work.progress(0.5, "halfway")?;
        Ok::<_, Error>(Json([1, 2]))
    });
    done.await.expect("completed");
    let operation = alice.get(&id).await.expect("the operation");
    assert_eq!(operation.decode_result::<(u8, u8)>().expect("a result"), (1, 2));
    assert_eq!(operation.worker.as_deref(), Some("block"));
    let again = client.perform(&id).with(async |_: Work| Ok::<_, Failure>(())).await;
    assert!(
        matches!(again, Err(PerformError::Refused(error)) if error.is(Kind::IllegalTransition))
    );
    let id = alice.create("block").await.expect("an operation").id;
    let failed = client.perform(&id).with(async |_: Work| Err::<(), _>(Failure::new("broken")));
    let failed = failed.await.expect_err("failed");
    assert_eq!(failed.to_string(), "Error: broken");
    assert_eq!(alice.get(&id).await.expect("the operation").status, Status::Failed);
    let id = alice.create("block").await.expect("an operation").id;
    let pending = client
        .perform(&id)
        .with(async |_: Work| std::future::pending::<Result<(), Failure>>().await);
    assert!(tokio::time::timeout(Duration::from_secs(2), pending).await.is_err());
    let mut watch = alice.watch(&id);
    while watch.next().await.expect("a change").expect("a change").status != Status::Pending {}
}

/// Claims that are refused for good end the worker, and settings are checked.
#[tokio::test]
async fn refused_claims_end_the_worker() {
    let (alice, _) = clients();
    let handler = async |_: Work| Ok::<_, Failure>(());
    let worker = Worker::builder(&alice).handle("f", handler).build().expect("a worker");
    let refused = worker.run(std::future::pending()).await.expect_err("refused");
    assert!(refused.is(Kind::PermissionDenied), "{refused}");
    assert!(Worker::builder(&alice).build().is_err());
    assert!(Worker::builder(&alice).handle("f", handler).concurrency(1_001).build().is_err());
}

/// Handlers that block the only thread of their runtime lose no lease.
#[test]
fn blocking_handlers_lose_no_lease() {
    let (alice, client) = clients();
    let function = unique_function();
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    let handler = |_: Work| async {
        #[allow(clippy::disallowed_methods, reason = "this is what must not hurt")]
        std::thread::sleep(Duration::from_secs(9));
        Ok::<_, Failure>("good")
    };
    let ids = runtime().expect("a runtime").block_on(async {
        let mut ids = Vec::new();
        for _ in 0..2 {
            ids.push(alice.create(&function).await.expect("an operation").id);
        }
        ids
    });
    let worker = Worker::builder(&client).handle(&function, handler).lease(Duration::from_secs(5));
    let worker = worker.build().expect("a worker");
    runtime().expect("a runtime").block_on(async {
        let running = Running::start(worker);
        for id in &ids {
            let operation = wait(&alice, id).await;
            assert_eq!((operation.status, operation.attempt), (Status::Completed, 1));
        }
        running.stop().await.expect("a good end");
    });
}

/// A progress stream ends when it is idle, and opens again for the next work.
#[tokio::test]
async fn idle_streams_open_again() {
    let (alice, client) = clients();
    let function = unique_function();
    let count = Arc::new(AtomicUsize::new(0));
    let seen = count.clone();
    let handler = move |work: Work| {
        let seen = seen.clone();
        async move {
            work.progress(0.5, "halfway")?;
            work.flush().await?;
            seen.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Failure>(())
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).build().expect("a worker");
    let running = Running::start(worker);
    for round in 1..=2 {
        alice.create(&function).await.expect("an operation");
        eventually("a stored report", || count.load(Ordering::SeqCst) == round).await;
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    running.stop().await.expect("a good end");
}
