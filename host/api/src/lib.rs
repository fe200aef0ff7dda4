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
mod body;
mod uploads;
mod offload;
mod lists;
mod answer;
mod views;
mod etag;
mod problem;
mod problem_kind;
mod plugins;
mod graphs;
mod runs;
mod states;
mod operator;

use std::future::Future;

use axum::Router;
use axum::extract::FromRequestParts;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use exosphere_api_types::Health;
use exosphere_orchestrator::Host;
use tokio::net::TcpListener;

pub use connections::ConnectionLimits;

use answer::Answer;
use problem::Problem;
use problem_kind::Kind;

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
        Problem::new(Kind::BadPath, rejection.body_text())
    }
}

impl From<QueryRejection> for Problem {
    fn from(rejection: QueryRejection) -> Self {
        Problem::new(Kind::BadQuery, rejection.body_text())
    }
}

/// Returns the router with every route. Handlers that read bodies or make large responses run
/// on the work runtime, and not on the threads that serve the other requests. Checks of every
/// request are not here: `connections` does them before routing.
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
    match host.health() {
        Ok(()) => Answer(Health {
            status: "ok".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            holding: host.holding(),
        })
        .into_response(),
        Err(_) => {
            let message = "the database is unavailable: the host's log has the reason";
            Problem::new(Kind::Unavailable, message).into_response()
        }
    }
}

async fn no_route() -> Problem {
    Problem::new(Kind::NoSuchRoute, "no route has this path")
}

async fn no_method() -> Problem {
    let message = "this path does not support the method";
    Problem::new(Kind::NoSuchMethod, message)
}
