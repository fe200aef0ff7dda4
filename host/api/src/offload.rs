//! Offloads slow handlers from the threads that serve requests to the work runtime, where nodes
//! run. Not here: the list of these handlers (`lib`), and the fair semaphore that orders them.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Host;
use tokio::task::JoinHandle;

use crate::body::announced;
use crate::problem::Problem;
use crate::problem_kind::Kind;

/// Runs a handler on the work runtime. If the caller disconnects, the handler is
/// aborted.
pub(crate) async fn offload(State(host): State<Host>, request: Request, next: Next) -> Response {
    let mut task = Task(host.work().spawn(next.run(request)));
    match (&mut task.0).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a handler panicked; its request is answered with an internal error");
            let message = "internal error: the host's log has the reason";
            Problem::new(Kind::Internal, message).into_response()
        }
    }
}

/// Runs a start on the work runtime, unless its body is short: two switches of threads would
/// cost more than parsing it. (Slow checks have threads of their own.)
pub(crate) async fn offload_long_start(
    State(host): State<Host>,
    request: Request,
    next: Next,
) -> Response {
    if announced(request.headers()).is_some_and(|bytes| bytes <= SHORT_START_BYTES) {
        next.run(request).await
    } else {
        offload(State(host), request, next).await
    }
}

/// The largest body of a short start, in bytes: it is parsed within a fraction of a
/// millisecond.
const SHORT_START_BYTES: u64 = 16 * 1024;

/// A task that is aborted when its handle is dropped.
struct Task(JoinHandle<Response>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
