//! The HTTP API of a host: JSON in, JSON out, errors as problem details (RFC 9457).
//!
//! Not here: the operations themselves. A handler turns a request into a call of
//! [`Host`] and the result into a body.

mod middleware;
mod connections;
mod body;
mod uploads;
mod offload;
mod answer;
mod etag;
mod problem;
mod plugins;
mod graphs;
mod runs;
mod states;
mod operator;

use std::future::Future;

use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use exosphere_orchestrator::domain::ids::Name;
use exosphere_orchestrator::{Host, Part};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

pub use connections::ConnectionLimits;
use problem::Problem;

/// Path parameters. A mismatch is answered with a problem instead of plain text.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
struct Path<T>(T);

/// Query parameters. A mismatch is answered with a problem instead of plain text.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
struct Query<T>(T);

impl From<PathRejection> for Problem {
    fn from(rejection: PathRejection) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad-path", rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::new(StatusCode::BAD_REQUEST, "bad-query", rejection.body_text())
    }
}

/// The query parameters of a list in the order of names.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListPart {
    after: Option<Name>,
    limit: Option<u32>,
}

/// The number of items per page, unless the caller asks for fewer.
const LIST_PAGE: u32 = 1000;

impl From<ListPart> for Part {
    fn from(ListPart { after, limit }: ListPart) -> Self {
        Part { after, most: limit.unwrap_or(LIST_PAGE).clamp(1, LIST_PAGE) }
    }
}

/// Returns the router with every route. Handlers that read bodies or make large
/// responses run apart from the threads that serve the other requests. Checks that
/// apply to every request are not here: `connections` does them before routing.
fn router(host: Host) -> Router {
    let offload = from_fn_with_state(host.clone(), offload::offload);
    let heavy = Router::new()
        .route("/plugins", post(plugins::push))
        .route("/plugins/{name}", get(plugins::show).post(plugins::check))
        .route("/graphs/{name}", get(graphs::show).put(graphs::apply))
        .route("/graphs/{name}/validate", post(graphs::validate))
        .route("/runs/{run}/states/{state}", get(states::show))
        .route_layer(axum::Extension(uploads::Uploads::default()))
        .route_layer(offload.clone());
    let start = from_fn_with_state(host.clone(), offload::offload_long_start);
    let namespace = Router::new()
        .route("/plugins", get(plugins::list))
        .route("/graphs", get(graphs::list))
        .route("/graphs/{name}/runs", post(runs::start).route_layer(start))
        .route("/runs", get(runs::list))
        .route("/runs/{run}", get(runs::show))
        .route("/runs/{run}/cancel", post(runs::cancel))
        .route("/runs/{run}/pause", post(runs::pause))
        .route("/runs/{run}/resume", post(runs::resume))
        .route("/runs/{run}/redrive", post(runs::redrive))
        .route("/runs/{run}/states", get(states::list))
        .route("/runs/{run}/states/{state}/retry", post(states::retry))
        .merge(heavy);
    Router::new()
        .route("/health", get(health))
        .nest("/v1/operator", operator::router().route_layer(offload))
        .nest("/v1/namespaces/{namespace}", namespace)
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .with_state(host)
}

/// Serves the API until `stop` resolves, and lets requests under way finish.
pub async fn serve(
    listener: TcpListener,
    host: Host,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let local = listener.local_addr()?.ip().is_loopback();
    connections::serve(listener, (router(host), local), limits, stop).await;
    Ok(())
}

async fn health(axum::extract::State(host): axum::extract::State<Host>) -> Response {
    let version = env!("CARGO_PKG_VERSION");
    match host.health() {
        Ok(()) => {
            let body = json!({"status": "ok", "version": version, "holding": host.holding()});
            Json(body).into_response()
        }
        Err(_) => {
            let words = "the database is unavailable; the host's log has the reason";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", words).into_response()
        }
    }
}

async fn no_route() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "no-such-route", "there is nothing at this path")
}

async fn no_method() -> Problem {
    let words = "this path does not take that method";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", words)
}
