//! The HTTP API of a host: JSON in, JSON out, errors as problem details (RFC 9457).
//!
//! A request passes the parts in the order in which they are listed: checks before routing
//! (`middleware`), its connection, its body (`body`, `uploads`), the runtime that handles it
//! (`offload`), and then a handler, in the module of its noun. A handler turns a request into a
//! call of [`Host`] and the result into an answer (`views`, `answer`).
//!
//! Not here: the operations themselves, and the types of requests and answers
//! (`exosphere-api-types`).

mod middleware;
mod connections;
mod tls;
mod access;
mod withhold;
mod body;
mod permits;
mod uploads;
mod route;
mod description;
mod openapi;
mod reference;
mod offload;
mod request_id;
mod compression;
mod query;
mod lists;
mod held_body;
mod answer;
mod views;
mod plugin_views;
mod etag;
mod idempotency;
mod problem;
mod problem_kind;
mod plugins;
mod graphs;
mod runs;
mod live;
mod states;
mod insight;
mod bulk;
mod operator;
mod health;
mod metrics;
mod secrets;
mod keys;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use exosphere_orchestrator::Host;
use tokio::net::TcpListener;
use tokio::sync::watch;
use utoipa::openapi::OpenApi;

pub use connections::ConnectionLimits;
pub use route::{QuotaClass, Requirement, Verb};
pub use tls::{Tls, TlsError};

use connections::Served;
use live::Live;
use metrics::ApiMetrics;
use problem::Problem;
use problem_kind::Kind;
use query::Query;
use route::{ApiState, Route};

/// Path parameters. A mismatch is answered with a problem instead of plain text.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
struct Path<T>(T);

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        let detail = match rejection {
            PathRejection::FailedToDeserializePathParams(failed) => match failed.into_kind() {
                ErrorKind::DeserializeError { key, message, .. } => format!("{key}: {message}"),
                ErrorKind::ParseErrorAtKey { key, .. } => {
                    format!("{key}: this is not a valid number")
                }
                ErrorKind::InvalidUtf8InPathParam { key } => {
                    format!("{key}: this is not UTF-8 when it is decoded")
                }
                other => other.to_string(),
            },
            other => other.body_text(),
        };
        Problem::new(Kind::BadPath, detail)
    }
}

/// Returns every route, grouped by tags with their descriptions. Handlers that read bodies or make
/// large responses run on the work runtime, and not on the threads that serve the other requests.
fn routes() -> Vec<(&'static str, &'static str, Vec<Route>)> {
    vec![
        ("Runs", "Starts of graphs, and their progress.", runs::routes()),
        ("Live", "Runs as they change, as server-sent events.", live::routes()),
        ("States", "The executions of nodes in a run.", states::routes()),
        ("Insight", "Times, failures and costs of runs, summarised.", insight::routes()),
        ("Bulk", "One action on every run that meets a filter.", bulk::routes()),
        ("Graphs", "Nodes wired to each other.", graphs::routes()),
        ("Secrets", "Values that nodes read by name, encrypted at rest.", secrets::routes()),
        ("Plugins", "WebAssembly components that have nodes.", plugins::routes()),
        ("Operator", "Namespaces, grants and hosts; for operators.", operator::routes()),
        ("Access", "Keys of the API, and the changes made with them; for admins.", keys::routes()),
        ("Host", "The host itself.", host_routes()),
        ("Reference", "This document, and pages made from it.", reference::routes()),
    ]
}

fn host_routes() -> Vec<Route> {
    health::routes().into_iter().chain(metrics::routes()).collect()
}

/// A route of the API, as a list shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method.
    pub verb: Verb,
    /// The path, with the names of its parameters in braces.
    pub path: &'static str,
    /// The requirement that each request must meet.
    pub requirement: Requirement,
}

/// Returns every route with its requirement.
pub fn route_list() -> Vec<RouteInfo> {
    let routes = routes().into_iter().flat_map(|(_, _, routes)| routes);
    let info = |Route { verb, path, requirement, .. }| RouteInfo { verb, path, requirement };
    routes.map(info).collect()
}

/// Returns the OpenAPI document of the API.
pub fn openapi_document() -> OpenApi {
    openapi::document(&routes())
}

/// Returns the router with every route. Checks of every request are not here: `connections` does
/// them before routing.
fn router(host: Host, asks_for_keys: bool, live: Live, metrics: Arc<ApiMetrics>) -> Router {
    let routes = routes().into_iter().flat_map(|(_, _, routes)| routes).collect();
    let uploads = uploads::Uploads::default();
    route::router(routes)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(ApiState { host, uploads, live, asks_for_keys, metrics })
}

/// The settings of the API, as an operator makes them.
#[derive(Clone)]
pub struct ApiSettings {
    /// Limits on connections.
    pub connections: ConnectionLimits,
    /// The certificate, if the API speaks HTTPS.
    pub tls: Option<Tls>,
    /// Set if routes need keys.
    pub asks_for_keys: bool,
}

/// Serves the API until `stop` resolves, and lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    host: Host,
    settings: ApiSettings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let local = listener.local_addr()?.ip().is_loopback();
    let ApiSettings { connections, tls, asks_for_keys } = settings;
    // Streams end when the others may finish.
    let (open, closed) = watch::channel(());
    let live = Live::new(connections.max_connections, closed);
    let metrics = Arc::new(ApiMetrics::new(&route_list()));
    let router = router(host, asks_for_keys, live, metrics.clone());
    let served = Served { router, local, metrics };
    let stop = async {
        stop.await;
        drop(open);
    };
    connections::serve(listener, served, (connections, tls), stop).await;
    Ok(())
}

async fn no_route() -> Problem {
    Problem::new(Kind::NoSuchRoute, "no route has this path")
}

async fn no_method() -> Problem {
    let message = "this path does not support the method";
    Problem::new(Kind::NoSuchMethod, message)
}
