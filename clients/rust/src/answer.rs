//! Calls that are described first, and sent when they are awaited.

use std::{future::Future, pin::Pin};

use crate::error::Result;

/// The future of a call.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T>> + Send>>;

/// Makes a description of a call a future, which sends the request and converts the answer.
macro_rules! answer {
    ($call:ident, $output:ty, |$this:ident, $reply:ident| $convert:expr) => {
        impl std::future::IntoFuture for $call {
            type Output = $crate::error::Result<$output>;
            type IntoFuture = $crate::answer::Answer<$output>;

            fn into_future(self) -> Self::IntoFuture {
                let $this = self;
                Box::pin(async move {
                    if let Some(problem) = $this.problem {
                        return Err(problem.into());
                    }
                    let waiting = $this.waiting;
                    let $reply = $this.client.send($this.request, waiting).await?;
                    Ok($convert)
                })
            }
        }
    };
}

/// Declares the description of a call, which holds its request.
macro_rules! call {
    ($(#[$comment:meta])* $call:ident, $request:ident) => {
        $(#[$comment])*
        #[must_use = "a call is sent when it is awaited"]
        #[derive(Debug)]
        pub struct $call {
            client: $crate::Client,
            request: $crate::proto::$request,
            problem: Option<$crate::error::ValueError>,
            waiting: std::time::Duration,
        }

        impl $call {
            pub(crate) fn new(
                client: &$crate::Client,
                request: $crate::proto::$request,
            ) -> Self {
                Self {
                    client: client.clone(),
                    request,
                    problem: None,
                    waiting: std::time::Duration::ZERO,
                }
            }

            #[allow(dead_code, reason = "only some calls need it")]
            pub(crate) fn client(&self) -> &$crate::Client {
                &self.client
            }
        }
    };
}

/// Setters of optional fields of the request.
macro_rules! setters {
    ($call:ident { $($(#[$comment:meta])* $field:ident: $type:ty $(=> $convert:expr)?;)+ }) => {
        impl $call {
            $($(#[$comment])*
            pub fn $field(mut self, $field: impl Into<$type>) -> Self {
                let value: $type = $field.into();
                $(let value = $convert(value);)?
                self.request.$field = Some(value);
                self
            })+
        }
    };
}

pub(crate) use {answer, call, setters};
