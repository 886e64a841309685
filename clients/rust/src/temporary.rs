//! The difference between final refusals and those that may pass.
//!
//! Every refusal of the service has a reason. An error without one comes from something between: the
//! connection, a proxy, or gRPC itself. It says nothing about the request, so that what may be sent
//! twice is sent again.

use tonic::Code;

use crate::error::{ApiError, Error, Kind};

impl Error {
    /// Return the facts if the error has no reason of the service.
    fn unexplained_facts(&self) -> Option<&ApiError> {
        let facts = self.api()?;
        let is_unexplained = facts.reason.is_empty() && facts.kind != Kind::UndecodableAnswer;
        is_unexplained.then_some(facts)
    }

    /// Return true if a call was broken on its way.
    ///
    /// Proxies reset the streams of a lost replica (INTERNAL) or answer with an error page
    /// (UNKNOWN), and a service that stops may cancel. A stream that has worked before may also
    /// meet a proxy that is full, or has no route now.
    pub(crate) fn is_disruption(&self, has_worked: bool) -> bool {
        self.unexplained_facts().is_some_and(|facts| match facts.code {
            Code::Unavailable | Code::DeadlineExceeded => true,
            Code::ResourceExhausted | Code::Unimplemented => has_worked,
            code => is_broken(code),
        })
    }

    /// Return true if another try of the same call may find the service.
    pub(crate) fn is_passing(&self) -> bool {
        self.is(Kind::Unavailable) || self.is_disruption(false)
    }

    /// Return true for a limit without a reason, as of a proxy or of the size of a message.
    pub(crate) fn is_vague_limit(&self) -> bool {
        self.unexplained_facts().is_some_and(|facts| facts.code == Code::ResourceExhausted)
    }

    /// Return true for the refusal of a proxy or of gRPC that may be temporary or not.
    pub(crate) fn is_unexplained(&self) -> bool {
        self.unexplained_facts()
            .is_some_and(|facts| is_broken(facts.code) || facts.code == Code::ResourceExhausted)
    }

    /// Return true if the same request may succeed later.
    pub(crate) fn is_temporary(&self) -> bool {
        let kinds = [
            Kind::Unavailable,
            Kind::DeadlineExceeded,
            Kind::RateLimited,
            Kind::LostRace,
            Kind::Internal,
        ];
        kinds.into_iter().any(|kind| self.is(kind)) || self.is_unexplained()
    }

    /// Return true for a defect of the service, which is unlikely to pass.
    pub(crate) fn is_defect(&self) -> bool {
        self.is(Kind::Internal) && !self.reason().is_empty()
    }

    /// Return true if a worker must stop working on the operation.
    pub(crate) fn is_over(&self) -> bool {
        [Kind::IllegalTransition, Kind::StaleAttempt, Kind::NotFound]
            .into_iter()
            .any(|kind| self.is(kind))
    }

    /// Return true if another content of a result or of an error may be accepted.
    ///
    /// A message that is too large for gRPC, or for a proxy, is refused without a reason.
    pub(crate) fn is_unstorable(&self) -> bool {
        self.is(Kind::Value) || self.is(Kind::InvalidRequest) || self.is_unexplained()
    }
}

/// Return true for the codes of a broken call, besides UNAVAILABLE.
fn is_broken(code: Code) -> bool {
    matches!(code, Code::Internal | Code::Unknown | Code::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a reason the code decides about another try; with one, only UNAVAILABLE is tried again.
    #[test]
    fn broken_calls_are_tried_again() {
        for number in 1..=16 {
            let code = Code::from_i32(number);
            let is_broken =
                is_broken(code) || matches!(code, Code::Unavailable | Code::DeadlineExceeded);
            let broken: Error = ApiError::without_reason(code, "m").into();
            assert_eq!(broken.is_passing(), is_broken, "without a reason: {code:?}");
            let mut facts = ApiError::without_reason(code, "m");
            facts.reason = "NEW_REASON".into();
            let refused: Error = facts.into();
            assert_eq!(refused.is_passing(), code == Code::Unavailable, "with one: {code:?}");
        }
    }
}
