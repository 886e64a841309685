//! Performs the commands of the conformance suite with the public client.
//!
//! It reads one JSON command a line and writes one JSON result a line: see
//! tests/conformance/README.md.

mod arguments;
mod bench;
mod callers;
mod output;
mod receivers;
mod workers;

use std::{
    collections::HashMap,
    io::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arguments::Command;
use futures_util::stream::BoxStream;
use milepost::Client;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// How a command ends without a result.
#[derive(Debug)]
pub(crate) enum Problem {
    /// An error of the client.
    Api(milepost::Error),
    /// A webhook that is not verified.
    NotVerified(String),
    /// Anything else, such as an unknown handle.
    Other(String),
    /// This language has no such call or value.
    Unsupported,
}

impl From<milepost::Error> for Problem {
    fn from(error: milepost::Error) -> Self {
        Self::Api(error)
    }
}

pub(crate) type Answer = Result<Value, Problem>;

/// A client, and the token that its source returns.
#[derive(Clone)]
pub(crate) struct Connection {
    pub(crate) client: Client,
    pub(crate) token: Arc<Mutex<String>>,
}

/// A sequence of items, as JSON.
pub(crate) type Sequence =
    Arc<tokio::sync::Mutex<Option<BoxStream<'static, milepost::Result<Value>>>>>;

/// Values that commands refer to by handles.
pub(crate) struct Handles<T>(Mutex<HashMap<String, T>>);

impl<T> Default for Handles<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T: Clone> Handles<T> {
    /// Keep the value under a new handle.
    pub(crate) fn put(&self, value: T) -> String {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let handle = LAST.fetch_add(1, Ordering::Relaxed).to_string();
        let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.insert(handle.clone(), value);
        handle
    }

    /// Return the value of the handle.
    pub(crate) fn get(&self, handle: &str) -> Result<T, Problem> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        values.get(handle).cloned().ok_or_else(|| Problem::Other(format!("no handle {handle:?}")))
    }
}

/// Everything that commands refer to.
#[derive(Default)]
pub(crate) struct Testee {
    pub(crate) connections: Handles<Connection>,
    pub(crate) sequences: Handles<Sequence>,
    pub(crate) workers: Handles<Arc<workers::Running>>,
    pub(crate) works: Handles<Arc<workers::Current>>,
}

impl Testee {
    async fn perform(&self, command: &Command) -> Answer {
        match command.text("call").as_deref().unwrap_or_default() {
            "connect" => callers::connect(self, command).await,
            "set_token" => callers::set_token(self, command),
            "disconnect" => callers::disconnect(self, command).await,
            "create" => callers::create(self, command).await,
            "get" => callers::get(self, command).await,
            "wait" => callers::wait(self, command).await,
            "result" => callers::result(self, command).await,
            "cancel" => callers::cancel(self, command).await,
            "delete" => callers::delete(self, command).await,
            "list" => callers::list(self, command),
            "events" => callers::events(self, command),
            "watch" => callers::watch(self, command),
            "next" => callers::next(self, command).await,
            "close" => callers::close(self, command),
            "claim" => workers::claim(self, command).await,
            "start" => workers::start(self, command).await,
            "update_progress" => workers::update_progress(self, command).await,
            "complete" => workers::complete(self, command).await,
            "fail" => workers::fail(self, command).await,
            "release" => workers::release(self, command).await,
            "acknowledge_cancellation" => workers::acknowledge(self, command).await,
            "worker_start" => workers::worker_start(self, command),
            "worker_next" => workers::worker_next(self, command).await,
            "work_progress" => workers::work_progress(self, command),
            "work_state" => workers::work_state(self, command),
            "work_return" => workers::work_return(self, command),
            "work_throw" => workers::work_throw(self, command),
            "worker_stop" => workers::worker_stop(self, command).await,
            "signing_secrets" => receivers::signing_secrets(self, command).await,
            "rotate_signing_secret" => receivers::rotate_signing_secret(self, command).await,
            "deliveries" => receivers::deliveries(self, command),
            "redeliver" => receivers::redeliver(self, command).await,
            "send_test_webhook" => receivers::send_test_webhook(self, command).await,
            "bench" => bench::bench(command).await,
            "verify_webhook" => receivers::verify_webhook(command),
            _ => Err(Problem::Unsupported),
        }
    }
}

/// Perform commands concurrently until the input ends.
#[tokio::main]
async fn main() {
    let testee = Arc::new(Testee::default());
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let command = match serde_json::from_str(&line) {
            Ok(value) => Command(value),
            Err(error) => {
                write(&json!({"error": output::error(&Problem::Other(error.to_string()))}));
                continue;
            }
        };
        let testee = testee.clone();
        tokio::spawn(async move {
            let mut line = json!({"id": command.0["id"]});
            match testee.perform(&command).await {
                Ok(result) => line["ok"] = result,
                Err(Problem::Unsupported) => line["unsupported"] = true.into(),
                Err(problem) => line["error"] = output::error(&problem),
            }
            write(&line);
        });
    }
}

fn write(line: &Value) {
    let mut output = std::io::stdout().lock();
    if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
        std::process::exit(1);
    }
}
