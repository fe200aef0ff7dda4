//! Errors of a node.
//!
//! Not here: the effect of a failure on the run. The graph's retry policy and the host
//! decide that.

use std::fmt;

use serde_json::Value;

/// The result of a node. `?` converts any standard error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error of a node.
///
/// Any [`std::error::Error`] becomes one by `?`. It is **retryable** then: the host
/// tries again as the graph's retry policy says. If another attempt cannot help, make
/// the error permanent, and the state ends immediately:
///
/// ```
/// use exosphere_sdk::prelude::*;
///
/// fn parse(text: &str) -> Result<i64> {
///     if text.is_empty() {
///         return Err(Error::permanent("the text is empty"));
///     }
///     Ok(text.parse().permanent()?)
/// }
/// # assert_eq!(parse("").unwrap_err().message(), "the text is empty");
/// # assert!(!parse("x").unwrap_err().is_retryable());
/// # assert_eq!(parse("7").unwrap(), 7);
/// ```
///
/// Like `anyhow::Error`, and for the same reason, this type is not a
/// [`std::error::Error`] itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Error {
    message: String,
    retryable: bool,
    details: Option<Value>,
}

impl Error {
    /// Creates a retryable error: another attempt may succeed.
    pub fn new(message: impl Into<String>) -> Self {
        Error { message: message.into(), retryable: true, details: None }
    }

    /// Creates a permanent error: no other attempt can succeed.
    pub fn permanent(message: impl Into<String>) -> Self {
        Error { retryable: false, ..Error::new(message) }
    }

    /// Adds details for the reader, kept as JSON.
    pub fn with_details(self, details: impl Into<Value>) -> Self {
        Error { details: Some(details.into()), ..self }
    }

    /// Returns the error message, for people.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Returns whether another attempt may help.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }

    /// Returns the details that were added for the reader.
    pub fn details(&self) -> Option<&Value> {
        self.details.as_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    /// Converts an error and its causes, as `what failed: cause: cause`.
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // Many errors repeat their cause in their own message.
            if !message.ends_with(&text) {
                message = format!("{message}: {text}");
            }
            cause = error.source();
        }
        Error::new(message)
    }
}

/// Marks the error in a result as permanent: no other attempt can succeed.
pub trait OrPermanent<T> {
    /// Returns the result with a permanent error.
    fn permanent(self) -> Result<T>;
}

impl<T, E: Into<Error>> OrPermanent<T> for Result<T, E> {
    fn permanent(self) -> Result<T> {
        self.map_err(|error| Error { retryable: false, ..error.into() })
    }
}

/// A failure, as the host receives it: the contract's record of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The error message, for people.
    pub message: String,
    /// Set if another attempt may help.
    pub retryable: bool,
    /// Details for the reader, as JSON text.
    pub details: Option<String>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure {
            message: error.message,
            retryable: error.retryable,
            details: error.details.map(|details| details.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError, &'static str);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.1)
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }

    fn cause() -> std::num::ParseIntError {
        "x".parse::<i64>().unwrap_err()
    }

    #[test]
    fn any_error_converts_to_a_retryable_error() {
        let error = Error::from(Outer(cause(), "no count"));
        assert_eq!(error.message(), "no count: invalid digit found in string");
        assert!(error.is_retryable());
        let error = Error::from(Outer(cause(), "no count: invalid digit found in string"));
        assert_eq!(error.message(), "no count: invalid digit found in string");
    }

    #[test]
    fn only_permanent_errors_are_not_retryable() {
        fn number(text: &str) -> Result<i64> {
            Ok(text.parse()?)
        }
        assert_eq!(number("3"), Ok(3));
        assert!(number("x").unwrap_err().is_retryable());
        let error = number("x").permanent().unwrap_err();
        assert!(!error.is_retryable());
        assert!(!"x".parse::<i64>().permanent().unwrap_err().is_retryable());
    }

    #[test]
    fn error_details_are_sent_as_json_text() {
        let error = Error::permanent("no").with_details(serde_json::json!({"code": 402}));
        assert_eq!(error.details(), Some(&serde_json::json!({"code": 402})));
        assert_eq!(
            Failure::from(error),
            Failure {
                message: "no".into(),
                retryable: false,
                details: Some("{\"code\":402}".into())
            }
        );
    }
}
