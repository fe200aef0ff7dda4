//! `/metrics`: the metrics of the host, and those of its API: requests by route, and connections.
//! A route is named by its template, so that no text of a request becomes a label.
//!
//! Not here: the metrics of the host itself (`exosphere-orchestrator`).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::role::Role;
use exosphere_orchestrator::metrics::{CONTENT_TYPE, Families, Histogram, encode};

use crate::RouteInfo;
use crate::route::Verb::Get;
use crate::route::{QuotaClass, Route, route};

/// The upper bounds of times of requests, in seconds. Long polls take up to a minute.
const SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];

/// The classes of statuses.
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

/// The label of requests that match no route.
const NO_ROUTE: &str = "none";

/// The index of requests that match no route.
const NO_ROUTE_INDEX: usize = 0;

pub(crate) fn routes() -> Vec<Route> {
    vec![
        route(Get, "/metrics", Role::Viewer, QuotaClass::Read, show_metrics)
            .describe(
                "metrics",
                "Returns the metrics of the host, in the text format of Prometheus",
            )
            .answers_bytes(200, CONTENT_TYPE)
            .in_outages(),
    ]
}

/// The metrics of the API.
pub(crate) struct ApiMetrics {
    /// Those of requests without a route, then those of each route.
    routes: Vec<RouteMetrics>,
    connections: AtomicUsize,
}

struct RouteMetrics {
    method: &'static str,
    path: &'static str,
    /// Answers by class of status.
    answers: [AtomicU64; CLASSES.len()],
    seconds: Histogram,
}

/// The route that a request has matched. On a connection of HTTP/1.1, which serves one request at a
/// time, it belongs to the connection, so that no request allocates one.
#[derive(Debug, Clone, Default)]
pub(crate) struct MatchedRoute(Arc<AtomicUsize>);

impl MatchedRoute {
    /// Returns it for the next request of its connection.
    pub(crate) fn cleared(&self) -> Self {
        self.0.store(NO_ROUTE_INDEX, Ordering::Relaxed);
        self.clone()
    }

    /// Records the route by its position in the list of routes.
    pub(crate) fn set(&self, position: usize) {
        self.0.store(position + 1, Ordering::Relaxed);
    }
}

/// An open connection; its end is counted on drop.
pub(crate) struct OpenConnection(Arc<ApiMetrics>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ApiMetrics {
    /// Creates the metrics of routes, in the order in which the router has them.
    pub(crate) fn new(routes: &[RouteInfo]) -> Self {
        let metrics = |method, path| RouteMetrics {
            method,
            path,
            answers: Default::default(),
            seconds: Histogram::new(SECONDS),
        };
        let routes = routes.iter().map(|route| metrics(route.verb.as_str(), route.path));
        let routes = std::iter::once(metrics(NO_ROUTE, NO_ROUTE)).chain(routes).collect();
        ApiMetrics { routes, connections: AtomicUsize::default() }
    }

    /// Counts a connection until the result is dropped.
    pub(crate) fn connected(self: &Arc<Self>) -> OpenConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(self.clone())
    }

    /// Counts an answer, with the time until it was ready.
    pub(crate) fn answered(&self, route: &MatchedRoute, status: StatusCode, time: Duration) {
        let Some(metrics) = self.routes.get(route.0.load(Ordering::Relaxed)) else { return };
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(count) = metrics.answers.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        metrics.seconds.observe_time(time);
    }

    fn write(&self, families: &mut Families<'_, '_>) -> fmt::Result {
        let connections = self.connections.load(Ordering::Relaxed) as f64;
        families.gauge("exosphere_http_connections", "Number of open connections.", connections)?;
        let help = "Answers of the API, by route and class of status.";
        families.counters("exosphere_http_requests", help, |series| {
            for RouteMetrics { method, path, answers, .. } in self.routes.iter().filter(is_used) {
                // All classes, also those without an answer: an increase is seen from 0 on only.
                for (class, count) in CLASSES.iter().zip(answers) {
                    let labels = [("method", *method), ("route", *path), ("status", *class)];
                    series.count(&labels, count.load(Ordering::Relaxed))?;
                }
            }
            Ok(())
        })?;
        let help = "Time from a request to its answer. It includes the wait of a long poll.";
        families.histograms("exosphere_http_request_seconds", help, |series| {
            for RouteMetrics { method, path, seconds, .. } in self.routes.iter().filter(is_used) {
                series.histogram(&[("method", *method), ("route", *path)], seconds)?;
            }
            Ok(())
        })
    }
}

/// Returns whether a route has answered a request.
fn is_used(route: &&RouteMetrics) -> bool {
    route.answers.iter().any(|count| count.load(Ordering::Relaxed) > 0)
}

async fn show_metrics(
    State(host): State<Host>,
    State(metrics): State<Arc<ApiMetrics>>,
) -> Response {
    let mut text = host.metrics().await;
    text.push_str(&encode(move |families| metrics.write(families)));
    ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(metrics: &Arc<ApiMetrics>) -> String {
        let metrics = metrics.clone();
        encode(move |families| metrics.write(families))
    }

    #[test]
    fn answers_are_counted_by_route() {
        let metrics = Arc::new(ApiMetrics::new(&crate::route_list()));
        let position = crate::route_list().iter().position(|route| route.path == "/health");
        let route = MatchedRoute::default();
        metrics.answered(&route, StatusCode::NOT_FOUND, Duration::from_millis(3));
        position.into_iter().for_each(|position| route.set(position));
        metrics.answered(&route, StatusCode::OK, Duration::from_millis(3));
        metrics.answered(&route, StatusCode::OK, Duration::from_millis(3));
        let route = route.cleared();
        metrics.answered(&route, StatusCode::NOT_FOUND, Duration::from_millis(3));
        let open = metrics.connected();
        let found = text(&metrics);
        drop(open);
        for line in [
            "exosphere_http_requests_total{method=\"GET\",route=\"/health\",status=\"2xx\"} 2\n",
            "exosphere_http_requests_total{method=\"none\",route=\"none\",status=\"4xx\"} 2\n",
            "exosphere_http_request_seconds_count{method=\"GET\",route=\"/health\"} 2\n",
            "exosphere_http_connections 1.0\n",
        ] {
            assert!(found.contains(line), "{line}{found}");
        }
        assert!(text(&metrics).contains("exosphere_http_connections 0.0\n"));
        assert!(!found.contains("/v1/"), "no series without a request: {found}");
    }
}
