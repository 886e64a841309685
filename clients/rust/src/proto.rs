//! The generated messages and stubs of `milepost.v1`, for calls that the client does not wrap.
//!
//! [`Client::connection`](crate::Client::connection) is the transport of a stub:
//!
//! ```no_run
//! # async fn list(client: milepost::Client) -> Result<(), tonic::Status> {
//! use milepost::proto::{ListApiKeysRequest, admin_service_client::AdminServiceClient};
//!
//! let mut admin = AdminServiceClient::new(client.connection());
//! let keys = admin.list_api_keys(ListApiKeysRequest::default()).await?;
//! # Ok(())
//! # }
//! ```
#![allow(clippy::all, clippy::pedantic, missing_docs, unreachable_pub, rustdoc::all)]

include!("gen/milepost.v1.rs");
