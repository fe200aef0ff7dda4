//! Keeps what takes time off the threads that serve requests: such a handler runs
//! where nodes run, and its request waits for it here. Not here: which handlers
//! these are (`lib`), and whose turn it is.

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Host;
use tokio::task::JoinHandle;

use crate::body::announced;
use crate::problem::Problem;

/// Runs a handler on the threads for work. If the caller hangs up, it ends there.
pub(crate) async fn at_work(State(host): State<Host>, request: Request, next: Next) -> Response {
    let mut task = Task(host.work().spawn(next.run(request)));
    match (&mut task.0).await {
        Ok(response) => response,
        Err(error) => {
            tracing::error!(%error, "a request was not answered");
            let words = "something went wrong inside the host; its log has the reason";
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", words).into_response()
        }
    }
}

/// Runs a start on the threads for work, unless its body is short: to change threads
/// twice would cost it more. (Checks that take long have threads of their own.)
pub(crate) async fn start_at_work(
    State(host): State<Host>,
    request: Request,
    next: Next,
) -> Response {
    if announced(request.headers()).is_some_and(|bytes| bytes <= SHORT_BYTES) {
        next.run(request).await
    } else {
        at_work(State(host), request, next).await
    }
}

/// Bytes of a body up to which it is read within a fraction of a millisecond.
const SHORT_BYTES: u64 = 16 * 1024;

/// A task that ends when this goes.
struct Task(JoinHandle<Response>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}
