//! The Rust client of Milepost, a service that tracks long-running operations.
//!
//! A caller creates an operation and waits for its result:
//!
//! ```no_run
//! # async fn call(key: String) -> Result<(), milepost::Error> {
//! use std::time::Duration;
//!
//! let client = milepost::Client::builder("127.0.0.1:7450").api_key(key).build()?;
//! let operation = client.create("video.transcode").await?;
//! let result: serde_json::Value = client.result(&operation.id, Duration::from_secs(600)).await?;
//! # Ok(())
//! # }
//! ```
//!
//! A [`Worker`] claims operations and calls a handler for each.
//!
//! Every call has a deadline, is tried again where that is safe, and returns an [`Error`] whose
//! [`Kind`] follows from the reason that the service sent. Calls need a runtime of tokio.

mod address;
mod answer;
mod backoff;
mod callers;
mod calls;
mod channel;
mod client;
mod codec;
mod connection;
mod credential;
mod error;
mod execution;
mod failure;
mod handler;
mod held;
mod items;
mod json;
mod operation;
mod outbox;
mod payload;
mod perform;
mod progress_stream;
pub mod proto;
mod receivers;
mod refusal;
mod shutdown;
mod signals;
mod socket;
mod status;
mod temporary;
#[cfg(feature = "opentelemetry")]
mod tracing_context;
mod until_final;
mod wait;
mod watch;
#[cfg(feature = "webhook")]
pub mod webhook;
mod work;
mod worker;
mod workers;

pub use answer::Answer;
pub use callers::{Cancel, Create, Delete, List, UniqueKeyPolicy};
pub use client::{Client, ClientBuilder, DEFAULT_DEADLINE, Tls};
pub use connection::Connection;
pub use credential::TokenError;
pub use error::{ApiError, Error, Kind, Result, ValueError, Violation};
pub use failure::Failure;
pub use items::Items;
pub use operation::{Event, JsonObject, Operation, OperationError, RetryPolicy};
pub use payload::{IntoPayload, Json, Packed, Payload};
pub use perform::{Perform, PerformError};
pub use prost_types::Any;
pub use receivers::{
    Deliveries, Delivery, DeliveryAttempt, DeliveryStatus, Redeliver, RotateSigningSecret,
    SigningSecret, SigningSecrets,
};
pub use shutdown::shutdown_signal;
pub use status::{NextStep, Status};
pub use tonic::Code;
pub use work::{Report, Work};
pub use worker::{DEFAULT_CONCURRENCY, DEFAULT_GRACE, DEFAULT_LEASE, Worker, WorkerBuilder};
pub use workers::{AcknowledgeCancellation, Claim, Complete, Fail, Release, Start, UpdateProgress};

/// The version of this client.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Sent with every call.
pub(crate) const USER_AGENT: &str = concat!("milepost-client-rust/", env!("CARGO_PKG_VERSION"));
