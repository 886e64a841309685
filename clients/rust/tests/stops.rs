//! Workers and handlers that stop, against a real service.

mod running;
mod service;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use milepost::{Client, Error, Failure, Kind, Status, Work, Worker};
use running::Running;
use serde_json::json;
use service::{unique_function, wait};
use tokio::sync::mpsc;

fn clients() -> (Client, Client) {
    let service = service::shared();
    (service.client("CALLER"), service.client("WORKER"))
}

/// A handler learns why it must stop: a cancel, or a lost lease.
#[tokio::test]
async fn handlers_learn_why_they_must_stop() {
    let (alice, client) = clients();
    let function = unique_function();
    let (started, mut starts) = mpsc::unbounded_channel();
    let (stopped, mut stops) = mpsc::unbounded_channel();
    let handler = move |work: Work| {
        let (started, stopped) = (started.clone(), stopped.clone());
        async move {
            started.send(()).expect("a reader");
            let reason = work.stopped().await;
            stopped.send(reason.clone()).expect("a reader");
            Err::<(), _>(reason)
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).concurrency(1);
    let running = Running::start(worker.build().expect("a worker"));
    let id = alice.create(&function).await.expect("an operation").id;
    starts.recv().await.expect("a start");
    alice.cancel(&id).await.expect("cancelled");
    let reason = stops.recv().await.expect("a reason");
    assert!(reason.is(Kind::Cancelled), "{reason}");
    let create = alice.create(&function).run_timeout(Duration::from_secs(1)).max_attempts(1);
    create.await.expect("an operation");
    starts.recv().await.expect("a start");
    let reason = stops.recv().await.expect("a reason");
    assert!(reason.is(Kind::StaleAttempt), "{reason}");
    running.stop().await.expect("a good end");
}

/// A handler that goes on after its operation was taken away loses its place after a while.
#[tokio::test]
async fn stubborn_handlers_are_given_up() {
    let (alice, client) = clients();
    let function = unique_function();
    let (started, mut starts) = mpsc::unbounded_channel();
    let handler = move |work: Work| {
        let started = started.clone();
        async move {
            started.send(work.operation().id.clone()).expect("a reader");
            std::future::pending::<Result<(), Failure>>().await
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).concurrency(1);
    let worker = worker.grace(Duration::ZERO).build().expect("a worker");
    let running = Running::start(worker);
    let first = alice.create(&function).await.expect("an operation").id;
    assert_eq!(starts.recv().await.expect("a start"), first);
    alice.cancel(&first).await.expect("cancelled");
    let second = alice.create(&function).await.expect("an operation").id;
    assert_eq!(starts.recv().await.expect("a place is free again"), second);
    running.stop().await.expect("a good end");
    assert_eq!(alice.get(&second).await.expect("the operation").status, Status::Pending);
}

/// A requested cancel is delivered, and acknowledged by the handler.
#[tokio::test]
async fn requested_cancels_are_acknowledged() {
    let (alice, client) = clients();
    let function = unique_function();
    let (started, mut starts) = mpsc::unbounded_channel();
    let handler = move |work: Work| {
        let started = started.clone();
        async move {
            started.send(()).expect("a reader");
            work.cancel_requested().cancelled().await;
            assert!(work.stop_reason().is_none());
            Err::<(), _>(Failure::cancel_acknowledged())
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler).build().expect("a worker");
    let running = Running::start(worker);
    let id = alice.create(&function).await.expect("an operation").id;
    starts.recv().await.expect("a start");
    let grace = Duration::from_secs(30);
    let requested = alice.cancel(&id).grace(grace).await.expect("requested");
    assert!(requested.status == Status::Processing && requested.cancel_request_time.is_some());
    let operation = wait(&alice, &id).await;
    assert_eq!(operation.status, Status::Cancelled);
    assert!(operation.cancel_delivered_time.is_some());
    running.stop().await.expect("a good end");
}

/// A worker that stops releases what it cannot finish, and acknowledges requested cancels.
#[tokio::test]
async fn stopped_workers_release_what_they_cannot_finish() {
    let (alice, client) = clients();
    let function = unique_function();
    let (started, mut starts) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let handler = move |work: Work| {
        let (started, number) = (started.clone(), count.fetch_add(1, Ordering::SeqCst));
        async move {
            work.save_checkpoint(json!({"number": number}))?;
            started.send(work.operation().id.clone()).expect("a reader");
            let reason = work.stopped().await;
            assert!(matches!(reason, Error::WorkerStopped), "{reason}");
            match number {
                0 => std::future::pending().await, // goes on all the same
                1 => Ok("finished"),
                _ => Err(Failure::from(reason)),
            }
        }
    };
    let worker = Worker::builder(&client).handle(&function, handler);
    let worker = worker.grace(Duration::from_millis(100)).build().expect("a worker");
    let running = Running::start(worker);
    let mut ids = Vec::new();
    for _ in 0..4 {
        alice.create(&function).await.expect("an operation");
        ids.push(starts.recv().await.expect("a start"));
    }
    alice.cancel(&ids[3]).grace(Duration::from_secs(60)).await.expect("requested");
    tokio::time::sleep(Duration::from_millis(500)).await; // the request travels on the stream
    let begin = Instant::now();
    running.stop().await.expect("a good end");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for (id, status) in
        ids.iter().zip([Status::Pending, Status::Completed, Status::Pending, Status::Cancelled])
    {
        let operation = alice.get(id).await.expect("the operation");
        assert_eq!((operation.status, operation.failed_attempts), (status, 0));
        assert!(status != Status::Pending || operation.checkpoint.is_some());
    }
}

/// A closed client releases the work of its workers at once; so does a worker that is dropped.
#[tokio::test]
async fn closed_clients_release_their_work() {
    let (alice, client) = clients();
    let function = unique_function();
    let (started, mut starts) = mpsc::unbounded_channel();
    let handler = move |work: Work| {
        let started = started.clone();
        async move {
            started.send(()).expect("a reader");
            Err::<(), _>(work.stopped().await)
        }
    };
    let build = || Worker::builder(&client).handle(&function, handler.clone()).build();
    let running = Running::start(build().expect("a worker"));
    let id = alice.create(&function).await.expect("an operation").id;
    starts.recv().await.expect("a start");
    let dropped = build().expect("a worker");
    drop(running); // the task goes on
    client.close().await;
    assert_eq!(alice.get(&id).await.expect("the operation").status, Status::Pending);
    assert!(client.get(&id).await.expect_err("closed").is(Kind::Closed));
    assert!(dropped.run(std::future::pending()).await.expect_err("closed").is(Kind::Closed));

    let other = service::shared().client("WORKER");
    let worker = Worker::builder(&other).handle(&function, handler).build().expect("a worker");
    tokio::select! {
        _ = worker.run(std::future::pending()) => {}
        _ = starts.recv() => {} // drops the run
    }
    let mut watch = alice.watch(&id);
    while let Some(operation) = watch.next().await {
        if operation.expect("a change").attempt == 2 {
            break;
        }
    }
    while watch.next().await.expect("a change").expect("a change").status != Status::Pending {}
}
