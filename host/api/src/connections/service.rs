//! The service of one connection: it records the start of each request and the end of
//! its response, rejects requests before routing, and limits reserved connections to
//! their purpose. All of that is in one service, because each router layer would cost
//! every request some allocations.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Method, Request, Response, header};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;

use super::activity::Activity;
use super::registry::ConnectionPermit;
use crate::access::PeerAddress;
use crate::problem::Problem;
use crate::problem_kind::Kind;
use crate::{body, middleware};

/// Seconds after which a caller may retry when the host is full (`Retry-After`).
const RETRY_AFTER_S: u64 = 1;

/// The service of one connection.
pub(crate) struct ConnectionService {
    routes: TowerToHyperService<Router>,
    activity: Arc<Activity>,
    address: IpAddr,
    local: bool,
    is_reserved: bool,
}

impl ConnectionService {
    pub(crate) fn new(
        router: Router,
        (address, local): (IpAddr, bool),
        permit: &ConnectionPermit,
    ) -> Self {
        let (activity, is_reserved) = (permit.activity.clone(), permit.is_reserved);
        let routes = TowerToHyperService::new(router);
        ConnectionService { routes, activity, address, local, is_reserved }
    }

    /// Returns the problem for a request that is rejected before routing.
    fn reject(&self, request: &Request<Incoming>) -> Option<Problem> {
        let problem = middleware::reject(request.uri(), request.headers(), self.local);
        let is_open = !self.is_reserved || is_urgent(request.method(), request.uri().path());
        problem.or_else(|| (!is_open).then(full))
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<TrackedBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<TrackedBody>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.activity.begin_request();
        let guard = RequestGuard(self.activity.clone());
        let is_long = body::is_long(request.headers());
        let is_reserved = self.is_reserved;
        let answer = match self.reject(&request) {
            Some(problem) => Err(problem),
            None => {
                let mut request = request.map(Body::new);
                request.extensions_mut().insert(PeerAddress(self.address));
                Ok(self.routes.call(request))
            }
        };
        Box::pin(async move {
            let mut response = match answer {
                Ok(answer) => answer.await?,
                Err(problem) => problem.into_response(),
            };
            middleware::add_security_headers(response.headers_mut());
            // A reserved connection serves one request. After the rejection of a long body the
            // connection cannot be reused: the body may not have been read.
            if is_reserved || (is_long && response.status().is_client_error()) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok(response.map(|body| TrackedBody { body, _guard: guard }))
        })
    }
}

/// Returns whether a request is allowed on a reserved connection.
fn is_urgent(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => path == "/health",
        Method::POST => path.starts_with("/v1/namespaces/") && path.ends_with("/cancel"),
        _ => false,
    }
}

fn full() -> Problem {
    let message = "the host, or this address, has no connection left; try again, or ask the \
                 operator to raise `exosphere serve --connections`";
    Problem::new(Kind::Full, message).retry_after(RETRY_AFTER_S)
}

/// A request under way; its end is recorded on drop.
struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.end_request();
    }
}

/// The body of a response; its drop ends the request.
pub(crate) struct TrackedBody {
    body: Body,
    _guard: RequestGuard,
}

impl HttpBody for TrackedBody {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_connections_serve_health_and_cancel() {
        let run = "/v1/namespaces/default/runs/0195b7f0-0000-7000-8000-000000000001";
        assert!(is_urgent(&Method::GET, "/health"));
        assert!(is_urgent(&Method::POST, &format!("{run}/cancel")));
        assert!(!is_urgent(&Method::GET, run));
        assert!(!is_urgent(&Method::POST, "/v1/namespaces/default/graphs/a/runs"));
    }
}
