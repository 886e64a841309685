//! The calls of a caller.

use std::time::{Duration, SystemTime};

use prost_types::Timestamp;
use serde::Serialize;

use crate::{
    answer::{answer, call, setters},
    client::Client,
    error::Result,
    items::Items,
    json,
    operation::{Event, Operation, RetryPolicy, to_duration},
    proto,
    status::Status,
};

/// What happens to a create whose unique key an active operation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum UniqueKeyPolicy {
    /// The active operation is returned, with `joined` set. The default.
    Join,
    /// The create is refused as `UniqueKeyTaken`.
    Refuse,
}

call! {
    /// A new operation. Every field but the function has a default.
    Create, CreateOperationRequest
}

setters! {
    Create {
        /// Set the id that makes the call repeatable: another create with it returns the same
        /// operation.
        request_id: String;
        /// Set the version of the function.
        version: String;
        /// Set the id of the request behind this operation.
        original_request_id: String;
        /// Set the https URL that receives webhooks.
        callback_url: String;
        /// Set the retention period: 24 h by default, from 60 s to 7 days.
        ttl: Duration => to_duration;
        /// Set the suggested pause between polls: 5 s by default.
        retry_after: Duration => to_duration;
        /// Bound the failed attempts: 3 by default.
        max_attempts: i32;
        /// Set the time before which the operation cannot be claimed.
        schedule_time: SystemTime => Timestamp::from;
        /// Set the priority, from 0 to 9; 5 by default.
        priority: i32;
        /// Set a key that at most one active operation of the owner has.
        unique_key: String;
        /// Set the pauses between the attempts.
        retry_policy: RetryPolicy => RetryPolicy::to_message;
        /// Bound the time without a worker.
        queue_timeout: Duration => to_duration;
        /// Bound one attempt.
        run_timeout: Duration => to_duration;
    }
}

impl Create {
    /// Set the data for the worker: a JSON object of at most 65,536 bytes and 20 levels.
    pub fn metadata(mut self, metadata: impl Serialize) -> Self {
        match json::to_struct(&metadata) {
            Ok(members) => self.request.metadata = Some(members),
            Err(problem) => self.problem = Some(problem),
        }
        self
    }

    /// Set the types of the events that are sent; by default those of the end.
    pub fn callback_events<T: Into<String>>(mut self, types: impl IntoIterator<Item = T>) -> Self {
        self.request.callback_events = types.into_iter().map(Into::into).collect();
        self
    }

    /// Set what happens if an active operation has the unique key.
    pub fn unique_key_policy(mut self, policy: UniqueKeyPolicy) -> Self {
        self.request.set_unique_key_policy(match policy {
            UniqueKeyPolicy::Join => proto::UniqueKeyPolicy::Join,
            UniqueKeyPolicy::Refuse => proto::UniqueKeyPolicy::Refuse,
        });
        self
    }
}

answer!(Create, Operation, |this, answer| Operation {
    joined: answer.joined,
    ..Operation::from_answer(answer.operation, answer.replayed)
});

/// A selection of operations that match every filter; by default all.
#[must_use = "a list is read by its `items`"]
#[derive(Debug)]
pub struct List {
    client: Client,
    request: proto::ListOperationsRequest,
}

impl List {
    /// Select these statuses.
    pub fn statuses(mut self, statuses: impl IntoIterator<Item = Status>) -> Self {
        self.request.statuses = statuses.into_iter().map(Status::number).collect();
        self
    }

    /// Select the exact name of a function.
    pub fn function(mut self, function: impl Into<String>) -> Self {
        self.request.function = Some(function.into());
        self
    }

    /// Select those that were created at this time or later.
    pub fn created_from(mut self, time: SystemTime) -> Self {
        self.request.create_time_from = Some(time.into());
        self
    }

    /// Select those that were created before this time.
    pub fn created_before(mut self, time: SystemTime) -> Self {
        self.request.create_time_to = Some(time.into());
        self
    }

    /// Select the operations of another owner, for admins.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.request.owner = Some(owner.into());
        self
    }

    /// Ask for the metadata, results, errors and checkpoints too.
    pub fn full(mut self) -> Self {
        self.request.set_view(proto::OperationView::Full);
        self
    }

    /// Set the number of operations per call: 50 by default, at most 100.
    pub fn page_size(mut self, size: i32) -> Self {
        self.request.page_size = size;
        self
    }

    /// Return the operations, newest first, over all pages.
    ///
    /// A rate limit refuses the first page, and delays each of the others for up to 5 minutes.
    pub fn items(self) -> Items<Operation> {
        Items::of_pages(move |token| {
            let client = self.client.clone();
            let request =
                proto::ListOperationsRequest { page_token: token, ..self.request.clone() };
            async move {
                let page = client.send(request, Duration::ZERO).await?;
                Ok((Operation::from_messages(page.operations), page.next_page_token))
            }
        })
    }
}

call! {
    /// The cancellation of an operation.
    Cancel, CancelOperationRequest
}

setters! {
    Cancel {
        /// Set the reason, which is stored with the operation, at most 1,000 characters.
        reason: String;
        /// Set the time that the worker has to end the operation, at most 1 h. Without it, the
        /// operation is cancelled at once.
        grace: Duration => to_duration;
        /// Set the revision that the operation must have.
        expected_revision: i64;
        /// Set the id that makes the call repeatable over a restart of the program.
        request_id: String;
    }
}

answer!(Cancel, Operation, |this, answer| Operation::from_answer(
    answer.operation,
    answer.replayed
));

call! {
    /// The deletion of an operation that has ended, and of its result.
    Delete, DeleteOperationRequest
}

setters! {
    Delete {
        /// Set the revision that the operation must have.
        expected_revision: i64;
        /// Set the id that makes the call repeatable over a restart of the program.
        request_id: String;
    }
}

answer!(Delete, (), |this, _answer| ());

impl Client {
    /// Create an operation of a function, such as `video.transcode`.
    ///
    /// ```no_run
    /// # async fn create(client: milepost::Client) -> Result<(), milepost::Error> {
    /// use serde_json::json;
    ///
    /// let operation = client
    ///     .create("video.transcode")
    ///     .metadata(json!({"source": "in.mov"}))
    ///     .request_id("order-7")
    ///     .await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn create(&self, function: impl Into<String>) -> Create {
        let function = function.into();
        Create::new(self, proto::CreateOperationRequest { function, ..Default::default() })
    }

    /// Return the present state of an operation.
    pub async fn get(&self, id: impl Into<String>) -> Result<Operation> {
        let request = proto::GetOperationRequest { operation_id: id.into() };
        let answer = self.send(request, Duration::ZERO).await?;
        Ok(Operation::from_message(answer.operation.unwrap_or_default()))
    }

    /// Select operations.
    pub fn list(&self) -> List {
        let mut request = proto::ListOperationsRequest::default();
        request.set_view(proto::OperationView::Basic);
        List { client: self.clone(), request }
    }

    /// Return the transitions of an operation that changed its status or requested to cancel it,
    /// oldest first, over all pages.
    ///
    /// A rate limit refuses the first page, and delays each of the others for up to 5 minutes.
    pub fn events(&self, id: impl Into<String>) -> Items<Event> {
        self.events_by(id, 0)
    }

    /// Return the [`events`](Self::events), with a number of events per call, at most 100.
    pub fn events_by(&self, id: impl Into<String>, page_size: i32) -> Items<Event> {
        let (client, operation_id) = (self.clone(), id.into());
        Items::of_pages(move |page_token| {
            let client = client.clone();
            let operation_id = operation_id.clone();
            let request = proto::ListEventsRequest { operation_id, page_size, page_token };
            async move {
                let page = client.send(request, Duration::ZERO).await?;
                let events = page.events.into_iter().map(Event::from_message).collect();
                Ok((events, page.next_page_token))
            }
        })
    }

    /// Cancel an operation.
    pub fn cancel(&self, id: impl Into<String>) -> Cancel {
        let operation_id = id.into();
        Cancel::new(self, proto::CancelOperationRequest { operation_id, ..Default::default() })
    }

    /// Delete an operation that has ended.
    pub fn delete(&self, id: impl Into<String>) -> Delete {
        let operation_id = id.into();
        Delete::new(self, proto::DeleteOperationRequest { operation_id, ..Default::default() })
    }
}
