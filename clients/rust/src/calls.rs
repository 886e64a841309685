//! One call: its deadline, its request id, and its tries.

use std::time::Duration;

use http::uri::PathAndQuery;
use prost::Message;
use tokio::time::Instant;
use tonic::{Code, Request, Status, client::Grpc};

use crate::{
    backoff::{Backoff, MAX_PAUSE},
    channel::was_not_sent,
    client::Client,
    codec::ProtoCodec,
    error::{ApiError, Error, Kind, Result},
    proto,
    refusal::rebuild,
};

/// Margin in which the end of a try counts as the end of its deadline.
const DEADLINE_MARGIN: Duration = Duration::from_millis(20);

/// The request of a unary call.
pub(crate) trait Call: Message + Clone + 'static {
    type Answer: Message + Default + 'static;
    const PATH: &'static str;
    /// True if it can be sent twice without a request id: reads, and claims, as what an unanswered
    /// claim has taken goes back to the service.
    const IS_REPEATABLE: bool;

    /// Give the request a request id, unless it takes none or has one.
    fn identify(&mut self);
}

macro_rules! calls {
    ($($service:literal: $($name:ident $kind:ident $request:ident -> $answer:ident;)+)+) => {
        $($(impl Call for proto::$request {
            type Answer = proto::$answer;
            const PATH: &'static str = concat!("/milepost.v1.", $service, "/", stringify!($name));
            const IS_REPEATABLE: bool = calls!(@repeatable $kind);

            fn identify(&mut self) {
                calls!(@identify $kind self);
            }
        })+)+
    };
    (@repeatable once) => { false };
    (@repeatable $kind:ident) => { true };
    (@identify write $request:ident) => {
        $request.request_id.get_or_insert_with(new_request_id);
    };
    (@identify $kind:ident $request:ident) => {};
}

calls! {
    "OperationService":
        CreateOperation write CreateOperationRequest -> CreateOperationResponse;
        GetOperation read GetOperationRequest -> GetOperationResponse;
        ListOperations read ListOperationsRequest -> ListOperationsResponse;
        WaitOperation read WaitOperationRequest -> WaitOperationResponse;
        CancelOperation write CancelOperationRequest -> CancelOperationResponse;
        ListEvents read ListEventsRequest -> ListEventsResponse;
        DeleteOperation write DeleteOperationRequest -> DeleteOperationResponse;
    "WorkerService":
        ClaimOperations read ClaimOperationsRequest -> ClaimOperationsResponse;
        StartOperation write StartOperationRequest -> StartOperationResponse;
        UpdateProgress write UpdateProgressRequest -> UpdateProgressResponse;
        CompleteOperation write CompleteOperationRequest -> CompleteOperationResponse;
        FailOperation write FailOperationRequest -> FailOperationResponse;
        ReleaseOperation write ReleaseOperationRequest -> ReleaseOperationResponse;
        AcknowledgeCancellation write AcknowledgeCancellationRequest
            -> AcknowledgeCancellationResponse;
    "WebhookService":
        GetSigningSecret read GetSigningSecretRequest -> GetSigningSecretResponse;
        RotateSigningSecret write RotateSigningSecretRequest -> RotateSigningSecretResponse;
        ListDeliveries read ListDeliveriesRequest -> ListDeliveriesResponse;
        RedeliverWebhook write RedeliverWebhookRequest -> RedeliverWebhookResponse;
        SendTestWebhook once SendTestWebhookRequest -> SendTestWebhookResponse;
}

/// Return a random UUID.
pub(crate) fn new_request_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Client {
    /// Return the answer to the request.
    ///
    /// A request that takes a request id and has none gets one, the same for every try. The
    /// deadline, and the waiting that is asked for, bound all tries.
    pub(crate) async fn send<C: Call>(&self, request: C, waiting: Duration) -> Result<C::Answer> {
        self.until_closed(self.send_until(request, waiting)).await
    }

    async fn send_until<C: Call>(&self, mut request: C, waiting: Duration) -> Result<C::Answer> {
        request.identify();
        let end = Instant::now() + self.deadline().saturating_add(waiting);
        let mut backoff = Backoff::new(MAX_PAUSE);
        loop {
            let (error, was_sent) = match self.try_once(request.clone(), end).await {
                Ok(answer) => return Ok(answer),
                Err(failed) => failed,
            };
            let can_repeat = C::IS_REPEATABLE || !was_sent;
            let pause = backoff.pause_after(&error);
            let is_late = Instant::now().checked_add(pause).is_none_or(|next| next > end);
            if !can_repeat || !error.is_passing() || is_late {
                return Err(error);
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Send the request once; beside an error, return false if the request was certainly not sent.
    async fn try_once<C: Call>(
        &self,
        request: C,
        end: Instant,
    ) -> std::result::Result<C::Answer, (Error, bool)> {
        let mut grpc = self.grpc().map_err(|error| (error, false))?;
        let replicas = self.connection().replicas;
        let opened = tokio::time::timeout_at(end, replicas.wait_until_open()).await;
        if let Err(status) = opened.unwrap_or_else(|_| Err(replicas.unreachable())) {
            return Err((self.failure(&status, end), false));
        }
        let mut request = Request::new(request);
        request.set_timeout(end.saturating_duration_since(Instant::now()));
        let codec = ProtoCodec::<C, C::Answer>::default();
        let trying = grpc.unary(request, PathAndQuery::from_static(C::PATH), codec);
        let answer = match tokio::time::timeout_at(end, trying).await {
            Ok(Ok(answer)) => answer.into_inner(),
            Ok(Err(status)) => return Err((self.failure(&status, end), !was_not_sent(&status))),
            Err(_) => return Err((late(), true)),
        };
        answer.map_err(|_| (undecodable(), true))
    }

    /// Return the typed error of a failed try.
    fn failure(&self, status: &Status, end: Instant) -> Error {
        if self.is_closed() {
            return Error::Closed;
        }
        let error = rebuild(status);
        // The timer of gRPC reports its deadline as a cancelled call.
        let is_late = Instant::now() + DEADLINE_MARGIN >= end;
        if is_late && error.reason().is_empty() && status.code() == Code::Cancelled {
            return late();
        }
        error
    }

    /// Return what makes calls over the connection.
    pub(crate) fn grpc(&self) -> Result<Grpc<crate::Connection>> {
        if self.is_closed() {
            return Err(Error::Closed);
        }
        Ok(Grpc::new(self.connection()).max_decoding_message_size(usize::MAX))
    }
}

/// Return the error of a call without a response in time.
pub(crate) fn late() -> Error {
    ApiError::without_reason(Code::DeadlineExceeded, "no response within the deadline").into()
}

/// Return the error of an answer that cannot be decoded.
pub(crate) fn undecodable() -> Error {
    let message = "the service accepted the call, but its response cannot be decoded";
    let facts = ApiError::without_reason(Code::Internal, message);
    ApiError { kind: Kind::UndecodableAnswer, ..facts }.into()
}
