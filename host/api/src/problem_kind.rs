//! The kinds of problems, each with its status and its name. `docs/reference/problems.md` describes
//! each; a test holds it to the list.
//!
//! Not here: the problem document (`problem`), and the reasons of refusals
//! (`exosphere_domain::reason`).

use axum::http::StatusCode;
use exosphere_orchestrator::{AdmissionError, Error};

/// Declares the kinds of problems, each with its status, its name for programs, its meaning, and
/// what the caller does.
macro_rules! kinds {
    ($($kind:ident $status:ident $name:literal: $meaning:literal, $remedy:literal;)*) => {
        /// The kind of a problem. Its name is stable.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Kind { $($kind,)* }

        impl Kind {
            /// Every kind, in the order of the list.
            pub(crate) const ALL: &[Kind] = &[$(Kind::$kind,)*];

            /// Returns the HTTP status.
            pub(crate) fn status(self) -> StatusCode {
                match self { $(Kind::$kind => StatusCode::$status,)* }
            }

            /// Returns the name for programs.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Kind::$kind => $name,)* }
            }

            /// Returns the kind of this name.
            pub(crate) fn from_name(name: &str) -> Option<Kind> {
                Kind::ALL.iter().copied().find(|kind| kind.name() == name)
            }

            /// Returns the type of the problem document: the path of its page on this host.
            pub(crate) fn page(self) -> &'static str {
                match self { $(Kind::$kind => concat!("/problems/", $name),)* }
            }

            /// Returns the meaning of the kind, in Markdown.
            pub(crate) fn meaning(self) -> &'static str {
                match self { $(Kind::$kind => $meaning,)* }
            }

            /// Returns what the caller does, in Markdown.
            pub(crate) fn remedy(self) -> &'static str {
                match self { $(Kind::$kind => $remedy,)* }
            }
        }
    };
}

kinds! {
    BadPath BAD_REQUEST "bad-path":
        "A part of the path is not valid, or a namespace is percent-encoded.",
        "Correct the path.";
    BadQuery BAD_REQUEST "bad-query":
        "A query parameter is unknown, missing, repeated or not valid; `errors` has each problem.",
        "Correct the query.";
    BadHeader BAD_REQUEST "bad-header":
        "`If-Match` is neither entity tags nor `*`, `If-None-Match` is not `*`, or `Idempotency-Key` is \
        not one visible text or not taken here.",
        "Send an `ETag` as it is, in its quotation marks; send one key.";
    BadHost BAD_REQUEST "bad-host":
        "The request does not name its host exactly once.",
        "Send one `Host` header that equals the host of the URL.";
    BadJson BAD_REQUEST "bad-json":
        "The body is not the JSON object that this path takes; `errors` has each member that is not \
        valid.",
        "Correct the body.";
    BrokenBody BAD_REQUEST "broken-body":
        "The body ended before its announced length.",
        "Repeat the request.";
    NoKey UNAUTHORIZED "no-key":
        "The request has no key.",
        "Send `Authorization: Bearer exo_..`.";
    WrongKey UNAUTHORIZED "wrong-key":
        "The key is mistyped, unknown, revoked or expired.",
        "Ask an admin for another key.";
    Forbidden FORBIDDEN "forbidden":
        "The role of the key does not suffice, or the key is not valid for all namespaces.",
        "Ask an admin for the key that `detail` names.";
    QuotaExceeded FORBIDDEN "quota-exceeded":
        "A quota of the namespace forbids an upload or a graph; `detail` names it, its value and the \
        command that raises it.",
        "Remove what is not needed, or ask an admin.";
    OtherSite FORBIDDEN "other-site":
        "The request comes from a page of another site, or under a host name that a host on the \
        loopback address refuses.",
        "Call the API from a program, or by `localhost` or the loopback address.";
    NotFound NOT_FOUND "not-found":
        "The object that the path names does not exist in this namespace.",
        "Correct the name or the namespace.";
    NoSuchRoute NOT_FOUND "no-such-route":
        "The API has no such path.",
        "Correct the path.";
    NoSuchMethod METHOD_NOT_ALLOWED "no-such-method":
        "The path does not take this method.",
        "Correct the method.";
    TooSlow REQUEST_TIMEOUT "too-slow":
        "The body arrives too slowly.",
        "Repeat the request over a faster connection.";
    Conflict CONFLICT "conflict":
        "The status of the run or of the state does not allow the request, the graph keeps \
         changing while a run starts, or too many bulk operations are not over.",
        "Read the run; repeat the request if it still makes sense.";
    Changed PRECONDITION_FAILED "changed":
        "The setting is not as `If-Match` or `If-None-Match` expects it; nothing was set.",
        "Read the setting again, and repeat the change on it.";
    TooLarge PAYLOAD_TOO_LARGE "too-large":
        "The body is larger than this path takes.",
        "Send less, or ask the operator to raise the limit that `detail` names.";
    TooManyValues PAYLOAD_TOO_LARGE "too-many-values":
        "The body takes more memory as JSON than `json_bytes` allows.",
        "Send fewer values, or ask the operator to raise the limit.";
    EncodedBody UNSUPPORTED_MEDIA_TYPE "encoded-body":
        "The body has a content encoding.",
        "Send it as it is, without `Content-Encoding`.";
    Invalid UNPROCESSABLE_ENTITY "invalid":
        "The graph, start, grant or setting is not valid.",
        "Correct every problem in `errors`.";
    KeyReused UNPROCESSABLE_ENTITY "key-reused":
        "The idempotency key has started a run or a bulk operation by a different request.",
        "Repeat the first request unchanged, or use another key.";
    PluginRefused UNPROCESSABLE_ENTITY "plugin-refused":
        "The upload is not a plugin that this host admits; `reason` says why.",
        "Correct the plugin.";
    TooManyUploads TOO_MANY_REQUESTS "too-many-uploads":
        "Too many uploads are under way, of all callers or of this namespace.",
        "Repeat the upload after `Retry-After`.";
    TooManyRequests TOO_MANY_REQUESTS "too-many-requests":
        "The key is used more often than it may be, many wrong keys came from this address, or a quota \
        of the namespace forbids a start now.",
        "Repeat the request after `Retry-After`.";
    Internal INTERNAL_SERVER_ERROR "internal":
        "Internal error. `detail` holds the incident id, under which the host's log has the cause.",
        "Report it to the operator, with the id.";
    CompilerKilled SERVICE_UNAVAILABLE "compiler-killed":
        "The system killed the compiling process repeatedly.",
        "Repeat the upload after `Retry-After`; if it persists, the host needs more memory.";
    Full SERVICE_UNAVAILABLE "full":
        "The host, or this address, has as many requests under way as it may have connections.",
        "Repeat the request after `Retry-After`.";
    Stopping SERVICE_UNAVAILABLE "stopping":
        "The host lets its running nodes end before it stops: it answers reads, and starts no runs.",
        "Ask another host, or repeat the request after `Retry-After`.";
    Unavailable SERVICE_UNAVAILABLE "unavailable":
        "The host has stopped, or its database does not answer. `reason` says whether the request had an effect.",
        "Repeat the request after `Retry-After`; a start with the same idempotency key.";
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
            Error::Quota { retry_after: None, .. } => Kind::QuotaExceeded,
            Error::Quota { .. } => Kind::TooManyRequests,
            Error::KeyReused { .. } => Kind::KeyReused,
            Error::Stopping => Kind::Stopping,
            Error::Unavailable | Error::Unanswered { .. } => Kind::Unavailable,
            Error::Internal(_) => Kind::Internal,
        }
    }
}
