//! A service for tests; see tests/conformance/README.md.
#![allow(dead_code, reason = "each test program uses a part of it")]

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, OnceLock},
    time::Duration,
};

use milepost::{Client, Operation};
use serde_json::{Value, json};

/// A running service that the test drives. It ends with the test.
pub(crate) struct Service {
    child: Child,
    pipes: Mutex<Option<(ChildStdin, BufReader<ChildStdout>)>>,
    pub(crate) address: String,
    pub(crate) ca_file: Option<PathBuf>,
}

impl Service {
    /// Start a service. It needs the environment of the repository, or another Python in
    /// `MILEPOST_TEST_PYTHON`.
    pub(crate) fn start(options: &[&str]) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let python = std::env::var_os("MILEPOST_TEST_PYTHON")
            .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
        let mut child = Command::new(python)
            .args(["-m", "tests.conformance.service"])
            .args(options)
            .current_dir(root)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the service starts");
        let input = child.stdin.take().expect("an input");
        let mut output = BufReader::new(child.stdout.take().expect("an output"));
        let addresses = read(&mut output);
        Self {
            child,
            pipes: Mutex::new(Some((input, output))),
            address: addresses["address"].as_str().expect("an address").to_owned(),
            ca_file: addresses["ca_file"].as_str().map(PathBuf::from),
        }
    }

    /// Perform one command, and return its result.
    pub(crate) fn perform(&self, command: &Value) -> Value {
        let mut pipes = self.pipes.lock().expect("the pipes");
        let (input, output) = pipes.as_mut().expect("a running service");
        writeln!(input, "{command}").expect("the command is written");
        let result = read(output);
        assert!(result["error"].is_null(), "{command}: {result}");
        result
    }

    /// Kill, stop or start the service.
    pub(crate) fn turn(&self, what: &str) {
        self.perform(&json!({"do": what}));
    }

    /// Return a new API key of a unique subject, granted all functions.
    pub(crate) fn key(&self, role: &str) -> String {
        let subject = format!("rust-{}", uuid::Uuid::new_v4());
        let command = json!({"do": "key", "subject": subject, "roles": [role], "functions": ["*"]});
        self.perform(&command)["key"].as_str().expect("a key").to_owned()
    }

    /// Return a client with a key of its own.
    pub(crate) fn client(&self, role: &str) -> Client {
        Client::builder(&self.address).api_key(self.key(role)).build().expect("a client")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.pipes.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let status = self.child.wait().expect("the service ends");
        assert!(status.success() || std::thread::panicking(), "the service: {status}");
    }
}

fn read(output: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    output.read_line(&mut line).expect("the service answers");
    serde_json::from_str(&line).expect("an answer in JSON")
}

/// Return the service that the tests of a program share. It ends with the program.
pub(crate) fn shared() -> &'static Service {
    static SERVICE: OnceLock<Service> = OnceLock::new();
    SERVICE.get_or_init(|| Service::start(&[]))
}

/// Return the name of a function that no other test works on.
pub(crate) fn unique_function() -> String {
    format!("test.{}", uuid::Uuid::new_v4().simple())
}

/// Return the operation at its end.
pub(crate) async fn wait(client: &Client, id: &str) -> Operation {
    let operation = client.wait(id, Duration::from_secs(60)).await.expect("an answer");
    assert!(operation.status.is_terminal(), "the operation is {}", operation.status);
    operation
}

/// Wait until the condition holds.
pub(crate) async fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 30 s: {what}");
}
