//! The description of a route for the OpenAPI document: its summary, its parameters, its body,
//! its answers and its problems. Each method that gives a route something to read also adds the
//! problems of reading it.
//!
//! Not here: the document (`openapi`), and the schemas of types (`exosphere-api-types`).

use std::borrow::Cow;

use exosphere_api_types::PageQuery;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::openapi::schema::Schema;
use utoipa::{IntoParams, ToSchema};

use crate::problem_kind::Kind;
use crate::route::Route;

/// The description of a route.
#[derive(Default)]
pub(crate) struct Description {
    /// The id of the operation, in camel case. It is stable.
    pub id: &'static str,
    /// The purpose of the operation, in one sentence without a full stop.
    pub summary: &'static str,
    /// More about the operation, in Markdown; may be empty.
    pub details: &'static str,
    /// The path in the document, if it is not that of the route.
    pub path: Option<&'static str>,
    /// The query parameters.
    pub query: Vec<fn() -> Vec<Parameter>>,
    /// The headers of a request.
    pub headers: Vec<HeaderParameter>,
    /// The body of a request.
    pub body: Option<Content>,
    /// The statuses of success, each with its answer.
    pub answers: Vec<(u16, Content)>,
    /// Set if a successful answer has an `ETag`.
    pub has_etag: bool,
    /// Set if an answer of the status 202 has a `Location`.
    pub has_location: bool,
    /// The problems of this route, besides those of every route.
    pub problems: Vec<Kind>,
}

/// A header of a request.
pub(crate) struct HeaderParameter {
    pub name: &'static str,
    pub about: &'static str,
    /// A regular expression that every valid value matches.
    pub pattern: &'static str,
    pub max_bytes: usize,
}

/// The content of a body.
#[derive(Clone, Copy)]
pub(crate) enum Content {
    /// JSON of a type.
    Json(TypeSchema),
    /// A JSON object of any shape.
    Object(&'static str),
    /// Bytes of a media type.
    Bytes(&'static str),
    /// A stream of server-sent events.
    Events,
}

/// The schema of a type.
#[derive(Clone, Copy)]
pub(crate) struct TypeSchema {
    pub name: fn() -> Cow<'static, str>,
    pub schema: fn() -> RefOr<Schema>,
    /// Adds the schemas of the types that it refers to.
    pub nested: fn(&mut Vec<(String, RefOr<Schema>)>),
}

impl TypeSchema {
    fn of<T: ToSchema>() -> Self {
        TypeSchema { name: T::name, schema: T::schema, nested: T::schemas }
    }
}

/// The longest idempotency key, in bytes.
const MAX_KEY_BYTES: usize = 256;

/// The longest id of an event, in bytes.
const MAX_EVENT_ID_BYTES: usize = 64;

/// Problems of every body.
const BODY_PROBLEMS: [Kind; 4] =
    [Kind::BrokenBody, Kind::TooSlow, Kind::TooLarge, Kind::EncodedBody];

/// Problems of a JSON body, besides those of every body.
const JSON_PROBLEMS: [Kind; 3] = [Kind::BadJson, Kind::TooManyValues, Kind::Invalid];

/// Problems of an upload, besides those of every body.
const UPLOAD_PROBLEMS: [Kind; 3] =
    [Kind::TooManyUploads, Kind::PluginRefused, Kind::CompilerKilled];

impl Route {
    /// Gives the operation its id and its summary.
    pub(crate) fn describe(mut self, id: &'static str, summary: &'static str) -> Self {
        (self.description.id, self.description.summary) = (id, summary);
        self
    }

    /// Says more about the operation, in Markdown.
    pub(crate) fn details(mut self, details: &'static str) -> Self {
        self.description.details = details;
        self
    }

    /// Shows another path in the document: that of the only value which the handler takes.
    pub(crate) fn shown_as(mut self, path: &'static str) -> Self {
        self.description.path = Some(path);
        self
    }

    /// Takes the query parameters of a type.
    pub(crate) fn query<Q: IntoParams>(mut self) -> Self {
        self.description.query.push(|| Q::into_params(|| Some(ParameterIn::Query)));
        self
    }

    /// Takes the query parameters of a filter, and those of a page.
    pub(crate) fn lists<F: IntoParams>(self) -> Self {
        self.query::<F>().query::<PageQuery>()
    }

    /// Takes a JSON body of a type.
    pub(crate) fn takes<T: ToSchema>(mut self) -> Self {
        self.description.body = Some(Content::Json(TypeSchema::of::<T>()));
        self.fails(&BODY_PROBLEMS).fails(&JSON_PROBLEMS)
    }

    /// Takes a JSON object that another page describes.
    pub(crate) fn takes_object(mut self, about: &'static str) -> Self {
        self.description.body = Some(Content::Object(about));
        self.fails(&BODY_PROBLEMS).fails(&JSON_PROBLEMS)
    }

    /// Takes the bytes of a plugin.
    pub(crate) fn takes_upload(mut self) -> Self {
        self.description.body = Some(Content::Bytes("application/wasm"));
        self.fails(&BODY_PROBLEMS).fails(&UPLOAD_PROBLEMS)
    }

    /// Answers with JSON of a type.
    pub(crate) fn answers<T: ToSchema>(mut self, status: u16) -> Self {
        self.description.answers.push((status, Content::Json(TypeSchema::of::<T>())));
        self
    }

    /// Answers with bytes of a media type.
    pub(crate) fn answers_bytes(mut self, status: u16, media_type: &'static str) -> Self {
        self.description.answers.push((status, Content::Bytes(media_type)));
        self
    }

    /// Answers with a stream of events.
    pub(crate) fn streams(mut self) -> Self {
        self.description.answers.push((200, Content::Events));
        self
    }

    /// Takes `Last-Event-ID`, and continues a stream after that event.
    pub(crate) fn resumable(mut self) -> Self {
        self.description.headers.push(HeaderParameter {
            name: "Last-Event-ID",
            about: "The id of the last event that the caller has got. An event with this id is not \
                    sent again.",
            pattern: "^[!-~]+$",
            max_bytes: MAX_EVENT_ID_BYTES,
        });
        self
    }

    /// Answers with an `ETag`: the version of a setting.
    pub(crate) fn with_etag(mut self) -> Self {
        self.description.has_etag = true;
        self
    }

    /// Answers with the `Location` of what the work is done for, if the status is 202.
    pub(crate) fn with_location(mut self) -> Self {
        self.description.has_location = true;
        self
    }

    /// Takes `If-Match`, and refuses the change if the setting has another version; and
    /// `If-None-Match`, which refuses it if there is one.
    pub(crate) fn if_match(mut self) -> Self {
        self.description.headers.push(HeaderParameter {
            name: "If-Match",
            about: "Changes the setting only if this is its `ETag`.",
            pattern: "^(\\*|\"[0-9a-f]{64}\")$",
            max_bytes: 66,
        });
        self.description.headers.push(HeaderParameter {
            name: "If-None-Match",
            about: "`*` makes the setting only if it does not exist. Not beside `If-Match`.",
            pattern: "^\\*$",
            max_bytes: 1,
        });
        self.fails(&[Kind::BadHeader, Kind::Changed])
    }

    /// Takes `Idempotency-Key`, and refuses another request with the same key.
    pub(crate) fn idempotent_by_key(mut self) -> Self {
        self.description.headers.push(HeaderParameter {
            name: "Idempotency-Key",
            about: "A second request with the same key and content returns the answer to the first.",
            pattern: "^[!-~]+$",
            max_bytes: MAX_KEY_BYTES,
        });
        self.fails(&[Kind::BadHeader, Kind::KeyReused])
    }

    /// Adds problems.
    pub(crate) fn fails(mut self, problems: &[Kind]) -> Self {
        self.description.problems.extend_from_slice(problems);
        self
    }
}
