//! Workers of the tests.
#![allow(dead_code, reason = "each test program uses a part of it")]

use milepost::Worker;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A worker that runs until it is stopped.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<Result<(), milepost::Error>>,
}

impl Running {
    pub(crate) fn start(worker: Worker) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let task = tokio::spawn(async move { worker.run(stopped).await });
        Self { stop, task }
    }

    pub(crate) async fn stop(self) -> Result<(), milepost::Error> {
        self.stop.cancel();
        self.task.await.expect("the worker does not panic")
    }

    /// Return the result of a worker that ends by itself.
    pub(crate) async fn ended(self) -> Result<(), milepost::Error> {
        self.task.await.expect("the worker does not panic")
    }
}
