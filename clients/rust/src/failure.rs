//! How a handler ends without a result.

use std::{
    any::Any,
    error::Error as StdError,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use serde::Serialize;

use crate::{
    error::{Error, ValueError},
    json,
    operation::{JsonObject, OperationError},
};

const MAX_CODE_LENGTH: usize = 255;
const MAX_MESSAGE_LENGTH: usize = 10_000;
const DEFAULT_CODE: &str = "Error";

/// The reason why a handler has no result.
///
/// Every error becomes one with the operator `?`: its type is the code, and its text, with those of
/// its sources, the message. The attempt has failed then, and the next one follows, if the operation
/// has one left. The constructors choose other ends.
#[derive(Debug, Clone)]
pub struct Failure {
    code: String,
    message: String,
    source: Option<String>,
    details: Option<Result<JsonObject, ValueError>>,
    end: End,
}

/// What becomes of the operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Another attempt, after the pause of the retry policy or after this one.
    Retry(Option<Duration>),
    /// A failure for good.
    Permanent,
    /// The acknowledgement of a requested cancel.
    CancelAcknowledged,
}

impl Failure {
    /// Return a failure of the attempt; the next one may succeed.
    pub fn new(message: impl fmt::Display) -> Self {
        Self::with_end(DEFAULT_CODE, message, End::Retry(None))
    }

    /// Return a failure for good: no other attempt can change that. The code is the kind of error
    /// for programs, such as `CODEC_UNSUPPORTED`.
    pub fn permanent(code: impl Into<String>, message: impl fmt::Display) -> Self {
        Self::with_end(code, message, End::Permanent)
    }

    /// Return a failure of the attempt that sets the pause before the next one, at most 24 h.
    pub fn retry_later(delay: Duration, message: impl fmt::Display) -> Self {
        Self::with_end("RetryLater", message, End::Retry(Some(delay)))
    }

    /// Say that the handler has stopped because a cancel was requested: the operation is cancelled.
    /// If none was requested, it is a failure of the attempt.
    #[must_use]
    pub fn cancel_acknowledged() -> Self {
        let message = "the requested cancel is acknowledged";
        Self::with_end("CancelAcknowledged", message, End::CancelAcknowledged)
    }

    fn with_end(code: impl Into<String>, message: impl fmt::Display, end: End) -> Self {
        let (code, message) = (code.into(), message.to_string());
        Self { code, message, source: None, details: None, end }
    }

    /// Set the kind of error for programs.
    #[must_use]
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = code.into();
        self
    }

    /// Set the part of the input or of the system that caused it.
    #[must_use]
    pub fn source(mut self, source: impl Into<String>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Add further data: a JSON object.
    #[must_use]
    pub fn details(mut self, details: impl Serialize) -> Self {
        self.details = Some(json::to_struct(&details).map(json::from_struct));
        self
    }

    /// Return the failure of a handler that has panicked.
    pub(crate) fn from_panic(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = format!("panic: {}", text.unwrap_or("a value without a text"));
        // The drop is code of the user too, and so is that of the value with which it panics.
        if let Err(other) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            Box::leak(other);
        }
        Self::new(message).code("Panic")
    }

    /// Return the failure of a result that cannot be stored: every attempt would end so.
    pub(crate) fn unstorable(refusal: &Error) -> Self {
        Self::permanent("UnstorableResult", format!("the result cannot be stored: {refusal}"))
    }

    /// Return the failure that replaces one which cannot be stored.
    pub(crate) fn refused(refusal: &Error) -> Self {
        Self::permanent("InvalidError", format!("The error was refused: {refusal}"))
    }

    pub(crate) fn end(&self) -> End {
        self.end
    }

    /// Return the same failure for good: the program that has started the operation decides about
    /// another attempt.
    pub(crate) fn made_final(mut self) -> Self {
        if self.end == End::Retry(None) {
            self.end = End::Permanent;
        }
        self
    }

    /// Return the error that is stored.
    pub(crate) fn to_error(&self) -> Result<OperationError, ValueError> {
        let code = storable(&self.code, MAX_CODE_LENGTH);
        let code = if code.is_empty() { DEFAULT_CODE.to_owned() } else { code };
        let message = storable(&self.message, MAX_MESSAGE_LENGTH);
        let message =
            if message.is_empty() { format!("{code} without a readable text") } else { message };
        Ok(OperationError {
            source: self.source.as_ref().map(|source| storable(source, MAX_CODE_LENGTH)),
            details: self.details.clone().transpose()?,
            ..OperationError::new(code, message)
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.code, self.message)
    }
}

/// [`Failure`] itself is no [`std::error::Error`], so that every one of these can become a failure.
impl<E: StdError + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        match (&error as &dyn Any).downcast_ref::<Error>() {
            Some(Error::Api(facts)) => Self::new(&facts.message).code(format!("{:?}", facts.kind)),
            Some(error) => Self::new(error).code(format!("{:?}", error.kind())),
            None => Self::new(text_of(&error)).code(name_of::<E>()),
        }
    }
}

/// Return the texts of the error and of its sources.
fn text_of(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        source = error.source();
    }
    text
}

/// Return the name of the type, without its modules and parameters.
fn name_of<E>() -> String {
    let path = std::any::type_name::<E>();
    let path = path.split('<').next().unwrap_or(path);
    path.rsplit("::").next().unwrap_or(path).to_owned()
}

/// Return the text without what the store cannot hold.
fn storable(text: &str, max_length: usize) -> String {
    let text = text.trim().replace('\0', "\\x00");
    match text.char_indices().nth(max_length) {
        Some((end, _)) => text[..end].to_owned(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Broken<T>(T);

    impl<T: fmt::Debug> fmt::Display for Broken<T> {
        fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str(" \0 ")
        }
    }

    impl<T: fmt::Debug> StdError for Broken<T> {
        fn source(&self) -> Option<&(dyn StdError + 'static)> {
            Some(&fmt::Error)
        }
    }

    /// The type of an error is its code, and its text with its sources the message.
    #[test]
    fn errors_are_described_by_their_type_and_text() {
        let error = Failure::from(Broken(1)).to_error().expect("storable");
        let cause = fmt::Error.to_string();
        assert_eq!((error.code.as_str(), error.message), ("Broken", format!("\\x00 : {cause}")));
        let closed = Failure::from(Error::Closed).to_error().expect("storable");
        assert_eq!(closed.code, "Closed");
    }

    /// Empty and long texts are made storable.
    #[test]
    fn texts_are_made_storable() {
        let error = Failure::permanent(" ", "").to_error().expect("storable");
        assert_eq!(
            (error.code.as_str(), error.message.as_str()),
            ("Error", "Error without a readable text")
        );
        let error = Failure::new("ü".repeat(20_000)).to_error().expect("storable");
        assert_eq!(error.message.chars().count(), MAX_MESSAGE_LENGTH);
        assert!(Failure::new("m").details([f64::NAN]).to_error().is_err());
        assert_eq!(Failure::from_panic(Box::new("no")).to_string(), "Panic: panic: no");
    }
}
