//! The service of one connection: it records the start of each request and the end of
//! its response, rejects requests before routing, and limits reserved connections to
//! their purpose. All of that is in one service, because each router layer would cost
//! every request some allocations.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use axum::response::IntoResponse;
use futures::future::BoxFuture;
use hyper::body::Incoming;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use tracing::Instrument;

use super::Served;
use super::activity::Activity;
use super::answer_body::{AnswerBody, RequestGuard};
use super::registry::ConnectionPermit;
use crate::access::RequestContext;
use crate::metrics::{ApiMetrics, MatchedRoute, OpenConnection};
use crate::problem::{Problem, name_request};
use crate::problem_kind::Kind;
use crate::{body, compression, middleware, request_id};

/// Seconds after which a caller may retry when the host is full (`Retry-After`).
const RETRY_AFTER_S: u64 = 1;

/// The service of one connection.
pub(crate) struct ConnectionService {
    routes: TowerToHyperService<Router>,
    activity: Arc<Activity>,
    address: IpAddr,
    local: bool,
    is_reserved: bool,
    metrics: Arc<ApiMetrics>,
    route: MatchedRoute,
    /// Counts the connection while it is open.
    _open: OpenConnection,
}

impl ConnectionService {
    pub(crate) fn new(
        Served { router, local, metrics }: &Served,
        address: IpAddr,
        permit: &ConnectionPermit,
    ) -> Self {
        ConnectionService {
            routes: TowerToHyperService::new(router.clone()),
            activity: permit.activity.clone(),
            address,
            local: *local,
            is_reserved: permit.is_reserved,
            metrics: metrics.clone(),
            route: MatchedRoute::default(),
            _open: metrics.connected(),
        }
    }

    /// Returns the problem for a request that is rejected before routing.
    fn reject(&self, request: &Request<Incoming>) -> Option<Problem> {
        let problem = middleware::reject(request.uri(), request.headers(), self.local);
        let is_open = !self.is_reserved || is_urgent(request.method(), request.uri().path());
        problem.or_else(|| (!is_open).then(full))
    }
}

impl Service<Request<Incoming>> for ConnectionService {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<AnswerBody>, Infallible>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let guard = RequestGuard::begin(self.activity.clone());
        let is_http2 = request.version() == Version::HTTP_2;
        if is_http2 {
            name_host(&mut request);
        }
        let (metrics, began_at) = (self.metrics.clone(), Instant::now());
        let route = if is_http2 { MatchedRoute::default() } else { self.route.cleared() };
        // An unread body ends its stream of HTTP/2, and not the connection.
        let is_long = !is_http2 && body::is_long(request.headers());
        let is_reserved = self.is_reserved;
        let id = request_id::of_request(request.headers());
        let span = tracing::error_span!("request", id = request_id::text(&id));
        let accepts_gzip = compression::is_accepted(request.headers());
        let answer = match self.reject(&request) {
            Some(problem) => Err(problem),
            None => {
                let mut request = request.map(Body::new);
                let context = RequestContext { address: self.address, route: route.clone() };
                request.extensions_mut().insert(context);
                Ok(self.routes.call(request))
            }
        };
        let answered = async move {
            let mut response = match answer {
                Ok(answer) => answer.await?,
                Err(problem) => problem.into_response(),
            };
            if response.status() == StatusCode::INTERNAL_SERVER_ERROR {
                response = name_request(response, request_id::text(&id));
            }
            if accepts_gzip {
                response = compression::compress(response).await;
            }
            response.headers_mut().insert(request_id::X_REQUEST_ID, id);
            middleware::add_security_headers(response.headers_mut());
            // A reserved connection serves one request. After the rejection of a long body the
            // connection cannot be reused: the body may not have been read.
            if is_reserved || (is_long && response.status().is_client_error()) {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            metrics.answered(&route, response.status(), began_at.elapsed());
            Ok(response.map(|body| AnswerBody::new(body, guard)))
        };
        Box::pin(answered.instrument(span))
    }
}

/// The paths that are read on a reserved connection: how the host does must be known above all
/// while it is full.
const URGENT_READS: [&str; 4] = ["/health", "/healthz", "/readyz", "/metrics"];

/// Returns whether a request is allowed on a reserved connection.
fn is_urgent(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => URGENT_READS.contains(&path),
        Method::POST => path.starts_with("/v1/namespaces/") && path.ends_with("/cancel"),
        _ => false,
    }
}

fn full() -> Problem {
    let message = "the host, or this address, has no connection left; try again, or ask the \
                 operator to raise `exosphere serve --connections`";
    Problem::new(Kind::Full, message).retry_after(RETRY_AFTER_S)
}

/// Writes the host that a request of HTTP/2 names in its pseudo-header as the header `Host`, unless
/// it has one.
fn name_host<B>(request: &mut Request<B>) {
    let authority = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let Some(Ok(host)) = authority.map(HeaderValue::try_from) else { return };
    request.headers_mut().entry(header::HOST).or_insert(host);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_connections_serve_health_and_cancel() {
        let run = "/v1/namespaces/default/runs/0195b7f0-0000-7000-8000-000000000001";
        for path in URGENT_READS {
            assert!(is_urgent(&Method::GET, path) && !is_urgent(&Method::POST, path), "{path}");
        }
        assert!(is_urgent(&Method::POST, &format!("{run}/cancel")));
        assert!(!is_urgent(&Method::GET, run));
        assert!(!is_urgent(&Method::POST, "/v1/namespaces/default/graphs/a/runs"));
    }
}
