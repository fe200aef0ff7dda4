//! The kinds of problems, each with its status and its name. `docs/reference/problems.md` describes
//! each; a test holds it to the list.
//!
//! Not here: the problem document (`problem`), and the reasons of refusals
//! (`exosphere_domain::reason`).

use axum::http::StatusCode;
use exosphere_orchestrator::{AdmissionError, Error};

/// Declares the kinds of problems, each with its status and its name for programs.
macro_rules! kinds {
    ($($kind:ident $status:ident $name:literal;)*) => {
        /// The kind of a problem. Its name is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Kind { $($kind,)* }

        impl Kind {
            /// Every kind, in the order of the list.
            #[cfg(test)]
            pub(crate) const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Returns the HTTP status.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Kind::$kind => StatusCode::$status,)* }
            }

            /// Returns the type of the problem document.
            pub(crate) fn urn(self) -> &'static str {
                match self { $(Kind::$kind => concat!("urn:exosphere:problem:", $name),)* }
            }
        }
    };
}

kinds! {
    BadPath BAD_REQUEST "bad-path";
    BadQuery BAD_REQUEST "bad-query";
    BadHeader BAD_REQUEST "bad-header";
    BadHost BAD_REQUEST "bad-host";
    BadJson BAD_REQUEST "bad-json";
    BrokenBody BAD_REQUEST "broken-body";
    OtherSite FORBIDDEN "other-site";
    NotFound NOT_FOUND "not-found";
    NoSuchRoute NOT_FOUND "no-such-route";
    NoSuchMethod METHOD_NOT_ALLOWED "no-such-method";
    TooSlow REQUEST_TIMEOUT "too-slow";
    Conflict CONFLICT "conflict";
    Changed PRECONDITION_FAILED "changed";
    TooLarge PAYLOAD_TOO_LARGE "too-large";
    TooManyValues PAYLOAD_TOO_LARGE "too-many-values";
    Invalid UNPROCESSABLE_ENTITY "invalid";
    KeyReused UNPROCESSABLE_ENTITY "key-reused";
    PluginRefused UNPROCESSABLE_ENTITY "plugin-refused";
    TooManyUploads TOO_MANY_REQUESTS "too-many-uploads";
    Internal INTERNAL_SERVER_ERROR "internal";
    CompilerKilled SERVICE_UNAVAILABLE "compiler-killed";
    Full SERVICE_UNAVAILABLE "full";
    Unavailable SERVICE_UNAVAILABLE "unavailable";
}

impl From<&Error> for Kind {
    fn from(error: &Error) -> Self {
        match error {
            Error::NotFound { .. } => Kind::NotFound,
            Error::Invalid { .. } => Kind::Invalid,
            Error::Plugin(AdmissionError::Killed { .. }) => Kind::CompilerKilled,
            Error::Plugin(_) | Error::Description { .. } => Kind::PluginRefused,
            Error::Conflict(_) => Kind::Conflict,
            Error::Changed { .. } => Kind::Changed,
            Error::KeyReused { .. } => Kind::KeyReused,
            Error::Unavailable | Error::Unanswered { .. } => Kind::Unavailable,
            Error::Internal(_) => Kind::Internal,
        }
    }
}
