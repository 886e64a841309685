//! Workers whose service, connection or process is lost.

mod running;
mod service;

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use milepost::{Client, Failure, Json, Report, Status, Work, Worker};
use running::Running;
use serde_json::{Value, json};
use service::{Service, eventually, unique_function, wait};
use tokio_util::sync::CancellationToken;

/// The variable that makes this program a worker, which kills itself after a checkpoint.
const KILLED: &str = "MILEPOST_TEST_KILLED_WORKER";

/// Leases and ends survive an outage of the service.
#[tokio::test]
async fn work_survives_restarts_of_the_service() {
    let service = Service::start(&[]);
    let (alice, client) = (service.client("CALLER"), service.client("WORKER"));
    let function = unique_function();
    let (go_on, started) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (go_on, started) = (go_on.clone(), started.clone());
        move |work: Work| {
            let (go_on, started) = (go_on.clone(), started.clone());
            async move {
                started.fetch_add(1, Ordering::SeqCst);
                work.progress(0.5, "half")?;
                tokio::select! {
                    () = go_on.cancelled() => Ok("good"),
                    reason = work.stopped() => Err(Failure::from(reason)),
                }
            }
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).lease(Duration::from_secs(5));
    let running = Running::start(worker.build().expect("a worker"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(alice.create(&function).await.expect("an operation").id);
    }
    eventually("all are in hand", || started.load(Ordering::SeqCst) == 5).await;
    service.turn("kill");
    go_on.cancel();
    tokio::time::sleep(Duration::from_secs(2)).await; // an outage
    service.turn("start");
    for id in &ids {
        let operation = wait(&alice, id).await;
        assert_eq!(operation.decode_result::<String>().ok().as_deref(), Some("good"));
        assert_eq!(operation.attempt, 1);
    }
    running.stop().await.expect("a good end");
}

/// One worker holds 500 operations at default limits, and loses none.
#[tokio::test]
async fn a_big_worker_loses_nothing() {
    const COUNT: usize = 500;
    let settings = ["--set", "active_operations_max=1000", "--set", "creates_per_minute=1000"];
    let service = Service::start(&[&["--limited"], settings.as_slice()].concat());
    let (alice, client) = (service.client("CALLER"), service.client("WORKER"));
    let function = unique_function();
    let (go_on, in_hand) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (go_on, in_hand) = (go_on.clone(), in_hand.clone());
        move |work: Work| {
            let (go_on, in_hand) = (go_on.clone(), in_hand.clone());
            async move {
                in_hand.fetch_add(1, Ordering::SeqCst);
                for step in 1.. {
                    work.progress((f64::from(step) / 100.0).min(1.0), "at work")?;
                    tokio::select! {
                        () = go_on.cancelled() => break,
                        reason = work.stopped() => return Err(Failure::from(reason)),
                        () = tokio::time::sleep(Duration::from_secs(5)) => {}
                    }
                }
                Ok(work.operation().attempt)
            }
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).concurrency(COUNT);
    let worker = worker.lease(Duration::from_secs(10)).build().expect("a worker");
    let running = Running::start(worker);
    let mut ids = Vec::new();
    for _ in 0..COUNT {
        ids.push(alice.create(&function).await.expect("an operation").id);
    }
    eventually("all are in hand", || in_hand.load(Ordering::SeqCst) >= COUNT).await;
    tokio::time::sleep(Duration::from_secs(25)).await; // two leases and a half
    go_on.cancel();
    for id in &ids {
        let operation = wait(&alice, id).await;
        let errors = operation.errors;
        assert_eq!((operation.status, operation.attempt), (Status::Completed, 1), "{errors:?}");
    }
    running.stop().await.expect("a good end");
}

/// The next attempt of a killed worker has its last stored checkpoint.
#[tokio::test]
async fn killed_workers_leave_their_checkpoint() {
    let service = Service::start(&[]);
    let (alice, client) = (service.client("CALLER"), service.client("WORKER"));
    let function = unique_function();
    let id = alice.create(&function).await.expect("an operation").id;
    let killed = Command::new(std::env::current_exe().expect("the path of the test"))
        .args(["--exact", "a_worker_that_kills_itself", "--ignored"])
        .env(KILLED, &function)
        .env("MILEPOST_ADDRESS", &service.address)
        .env("MILEPOST_API_KEY", service.key("WORKER"))
        .output()
        .expect("the worker runs");
    assert!(killed.status.code().is_none(), "the worker was not killed: {killed:?}");
    let handler = async |work: Work| {
        let checkpoint: Option<Value> = work.operation().decode_checkpoint()?;
        Ok::<_, Failure>(Json(checkpoint))
    };
    let worker = Worker::builder(&client).handle(&function, handler).build().expect("a worker");
    let running = Running::start(worker);
    let operation = wait(&alice, &id).await;
    assert_eq!(operation.decode_result::<Value>().expect("a result"), json!({"frame": 400}));
    assert_eq!((operation.attempt, operation.failed_attempts), (2, 1));
    running.stop().await.expect("a good end");
}

/// The worker that the test above starts in a process of its own.
#[tokio::test]
#[ignore = "it kills its process"]
async fn a_worker_that_kills_itself() {
    let function = std::env::var(KILLED).expect("only the test above starts it");
    let variable = |name: &str| std::env::var(name).expect("a variable");
    let builder = Client::builder(variable("MILEPOST_ADDRESS"));
    let client = builder.api_key(variable("MILEPOST_API_KEY")).build().expect("a client");
    let handler = async |work: Work| {
        work.report(Report::new().progress(0.4).checkpoint(json!({"frame": 400})))?;
        work.flush().await?;
        let id = std::process::id().to_string();
        Command::new("kill").args(["-KILL", &id]).status().map_err(Failure::from)?;
        std::future::pending::<Result<(), Failure>>().await
    };
    let worker = Worker::builder(&client).handle(function, handler).lease(Duration::from_secs(5));
    let worker = worker.build().expect("a worker");
    worker.run(std::future::pending()).await.expect("killed before");
}
