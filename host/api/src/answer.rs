//! Responses with a JSON body. One that is large holds its memory permit until it has
//! been sent. Not here: the content of the body (`views`).

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use exosphere_api_types::to_text;
use exosphere_orchestrator::AnswerPermit;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use serde::Serialize;

use crate::problem::Problem;
use crate::problem_kind::Kind;

/// An answer as a JSON response.
pub(crate) struct Answer<T>(pub T);

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        respond(&self.0, None)
    }
}

/// Returns an answer as a JSON response, which holds its memory permit until it has been sent.
pub(crate) fn respond(answer: &impl Serialize, permit: Option<AnswerPermit>) -> Response {
    let text = match to_text(answer) {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(%error, "cannot write an answer as JSON");
            let message =
                "internal error: the answer cannot be written; the host's log has the reason";
            return Problem::new(Kind::Internal, message).into_response();
        }
    };
    let body = match permit {
        None => Body::from(text),
        Some(permit) => Body::new(PermittedBody { body: Body::from(text), _permit: permit }),
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// A body with its memory permit.
struct PermittedBody {
    body: Body,
    _permit: AnswerPermit,
}

impl HttpBody for PermittedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
