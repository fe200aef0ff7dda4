//! Offloads slow handlers from the threads that serve requests to the work runtime, where nodes
//! run. Not here: which handlers (`Route::offloaded`), and the fair semaphore that orders them.

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Host;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::body::announced;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::route::HandlerFuture;

/// Runs a handler on the work runtime. If the caller disconnects, the handler is
/// aborted.
pub(crate) async fn offload(host: Host, handler: HandlerFuture) -> Response {
    let mut task = Task(host.work().spawn(handler.in_current_span()));
    match (&mut task.0).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a handler panicked; its request is answered with an internal error");
            let message = "internal error: the host's log has the reason";
            Problem::new(Kind::Internal, message).into_response()
        }
    }
}

/// Runs a handler on the work runtime, unless the body of its request is short: two switches of
/// threads would cost more than parsing it. (Slow checks have threads of their own.)
pub(crate) fn offload_long(
    host: &Host,
    request: Request,
    handle: impl FnOnce(Request) -> HandlerFuture,
) -> HandlerFuture {
    let is_short = announced(request.headers()).is_some_and(|bytes| bytes <= SHORT_BODY_BYTES);
    let handler = handle(request);
    if is_short { handler } else { Box::pin(offload(host.clone(), handler)) }
}

/// The largest short body, in bytes: it is parsed within a fraction of a millisecond.
const SHORT_BODY_BYTES: u64 = 16 * 1024;

/// A task that is aborted when its handle is dropped.
struct Task(JoinHandle<Response>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
