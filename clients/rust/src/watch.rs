//! Watching an operation, over as many connections as it takes.

use std::time::Duration;

use futures_util::stream;
use http::uri::PathAndQuery;
use tokio::time::Instant;
use tonic::{Request, Streaming};

use crate::{
    backoff::{Backoff, MAX_PAUSE},
    calls::undecodable,
    client::Client,
    codec::{ProtoCodec, Received},
    error::{Error, Kind, Result},
    items::Items,
    operation::Operation,
    proto::{self, watch_operation_response::Item},
    refusal::rebuild,
};

const PATH: &str = "/milepost.v1.OperationService/WatchOperation";
/// How long a watch that has worked before tries to connect again.
const MAX_OUTAGE: Duration = Duration::from_secs(300);

type Responses = Streaming<Received<proto::WatchOperationResponse>>;

impl Client {
    /// Return the changes of an operation, up to its end, over as many connections as it takes.
    ///
    /// Every change of status comes exactly once and in order; of the progress a slow reader gets
    /// only the newest report. The first item is the present state.
    pub fn watch(&self, id: impl Into<String>) -> Items<Operation> {
        self.watch_after(id, 0)
    }

    /// Return the changes of an operation after a revision; see [`watch`](Self::watch).
    pub fn watch_after(&self, id: impl Into<String>, revision: i64) -> Items<Operation> {
        let watch = Watch {
            client: self.clone(),
            request: proto::WatchOperationRequest {
                operation_id: id.into(),
                after_revision: revision,
            },
            responses: None,
            backoff: Backoff::new(MAX_PAUSE),
            end: None,
            has_worked: false,
        };
        Items::new(stream::try_unfold(watch, |mut watch| async move {
            Ok(watch.next().await?.map(|operation| (operation, watch)))
        }))
    }
}

/// One sequence of changes over several streams.
struct Watch {
    client: Client,
    request: proto::WatchOperationRequest,
    responses: Option<Responses>,
    backoff: Backoff,
    /// The end of the tries to connect again. None before the first one, and after an item: the
    /// reader may spend any time on that.
    end: Option<Instant>,
    has_worked: bool,
}

impl Watch {
    /// Return the next change; None at the end of the operation.
    async fn next(&mut self) -> Result<Option<Operation>> {
        loop {
            let outage = if self.has_worked { MAX_OUTAGE } else { self.client.deadline() };
            let end = *self.end.get_or_insert_with(|| Instant::now() + outage);
            let client = self.client.clone();
            let error = match client.until_closed(self.read(end)).await {
                Ok(end_or_change) => return Ok(end_or_change),
                Err(error) => error,
            };
            self.responses = None;
            if self.client.is_closed() {
                return Err(Error::Closed);
            }
            let pause = self.backoff.pause_after(&error);
            if !self.is_temporary(&error) || Instant::now() + pause > end {
                return Err(error);
            }
            let paused = async {
                tokio::time::sleep(pause).await;
                Ok(())
            };
            client.until_closed(paused).await?;
        }
    }

    /// Read the next change from the stream, which is opened before if need be.
    async fn read(&mut self, end: Instant) -> Result<Option<Operation>> {
        loop {
            let item = if let Some(responses) = &mut self.responses {
                responses.message().await
            } else {
                let opened = tokio::time::timeout_at(end, self.open()).await;
                self.responses = Some(opened.map_err(|_| crate::calls::late())??);
                continue;
            };
            let received = match item {
                Ok(Some(received)) => received,
                Ok(None) => return Ok(None),
                Err(status) => return Err(rebuild(&status)),
            };
            let response = received.map_err(|_| undecodable())?;
            self.has_worked = true;
            self.end = None;
            self.backoff.reset();
            if let Some(Item::Operation(operation)) = response.item {
                self.request.after_revision = operation.revision;
                return Ok(Some(Operation::from_message(operation)));
            }
        }
    }

    async fn open(&self) -> Result<Responses> {
        let mut grpc = self.client.grpc()?;
        let codec = ProtoCodec::<_, proto::WatchOperationResponse>::default();
        let request = Request::new(self.request.clone());
        let path = PathAndQuery::from_static(PATH);
        let answer = grpc.server_streaming(request, path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| rebuild(&status))
    }

    /// Return true if the watch is to connect again. A limit does not end one that has worked.
    fn is_temporary(&self, error: &Error) -> bool {
        error.is(Kind::Unavailable)
            || error.is_disruption(self.has_worked)
            || (self.has_worked && error.is(Kind::LimitReached))
    }
}
