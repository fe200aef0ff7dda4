//! Responses with a JSON body. One that is large holds its memory permit until it has
//! been sent. Not here: the content of the body (`views`).

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use exosphere_api_types::to_text;
use exosphere_orchestrator::AnswerPermit;
use serde::Serialize;

use crate::held_body::HeldBody;
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
        Some(permit) => Body::new(HeldBody::new(Body::from(text), permit)),
    };
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}
