//! Routes: [`route`] registers each with the rights that it needs, its quota and its description
//! in the OpenAPI document, so that no route lacks one of them.
//!
//! [`Route`]s are data until [`router`] makes a router of them. Each request passes
//! [`Guarded::call`] before its handler: the one place that knows the requirement of its route.
//!
//! Not here: the list of routes (`lib`, and `routes` in the module of each noun), and the
//! methods that describe a route (`description`).

use std::future::ready;
use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRef, Request};
use axum::handler::Handler;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use exosphere_orchestrator::Host;
use exosphere_orchestrator::domain::role::Needs;

use crate::access::{self, Decision, RequestContext};
use crate::description::Description;
use crate::live::Live;
use crate::metrics::ApiMetrics;
use crate::offload::{offload, offload_long};
use crate::query;
use crate::uploads::Uploads;
use crate::withhold::withhold;

/// The state that handlers share.
#[derive(Clone)]
pub(crate) struct ApiState {
    pub host: Host,
    pub uploads: Uploads,
    pub live: Live,
    /// Set if routes need keys.
    pub asks_for_keys: bool,
    pub metrics: Arc<ApiMetrics>,
}

impl FromRef<ApiState> for Arc<ApiMetrics> {
    fn from_ref(state: &ApiState) -> Arc<ApiMetrics> {
        state.metrics.clone()
    }
}

impl FromRef<ApiState> for Host {
    fn from_ref(state: &ApiState) -> Host {
        state.host.clone()
    }
}

impl FromRef<ApiState> for Uploads {
    fn from_ref(state: &ApiState) -> Uploads {
        state.uploads.clone()
    }
}

impl FromRef<ApiState> for Live {
    fn from_ref(state: &ApiState) -> Live {
        state.live.clone()
    }
}

/// The class of a route's quota: requests of one class count together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QuotaClass {
    /// Requests that are not counted: `/health`, and pages that are the same for all callers.
    Exempt,
    /// Reads.
    Read,
    /// Small changes: a cancel, a retry, a setting, a graph.
    Write,
    /// Starts of runs.
    Start,
    /// Uploads of plugins.
    Upload,
}

impl QuotaClass {
    /// Returns the name of the class in the OpenAPI document.
    pub fn as_str(self) -> &'static str {
        match self {
            QuotaClass::Exempt => "exempt",
            QuotaClass::Read => "read",
            QuotaClass::Write => "write",
            QuotaClass::Start => "start",
            QuotaClass::Upload => "upload",
        }
    }
}

/// The requirement of a route, which each request must meet. It is an extension of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The least role of the caller.
    pub needs: Needs,
    /// The class whose quota the request uses.
    pub quota: QuotaClass,
    /// Set if the answer holds payloads, which not every caller may see.
    pub shows_payloads: bool,
    /// Set if the caller's key must be valid for all namespaces, although the path names one.
    pub all_namespaces: bool,
    /// Set if the route also answers while the database is away, to keys that were valid before.
    pub in_outages: bool,
}

/// The threads on which a handler runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// The threads that serve requests.
    Serving,
    /// The work runtime, for a handler that reads bodies or makes large answers.
    Work,
    /// The work runtime, unless the body is short.
    WorkIfLong,
}

/// The method of a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// `GET`, and `HEAD` with it.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `PATCH`.
    Patch,
    /// `DELETE`.
    Delete,
}

impl Verb {
    /// Returns the name of the method.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Delete => "DELETE",
        }
    }

    fn filter(self) -> MethodFilter {
        match self {
            Verb::Get => MethodFilter::GET,
            Verb::Post => MethodFilter::POST,
            Verb::Put => MethodFilter::PUT,
            Verb::Patch => MethodFilter::PATCH,
            Verb::Delete => MethodFilter::DELETE,
        }
    }
}

/// A route, before it is part of a router.
pub(crate) struct Route {
    pub verb: Verb,
    pub path: &'static str,
    pub requirement: Requirement,
    pub place: Place,
    pub description: Description,
    /// Builds the handler behind its guard.
    build: Box<dyn FnOnce(Serving) -> MethodRouter<ApiState>>,
}

/// Makes a route. It needs at least a role ([`Needs::Nothing`] if anyone may send the request)
/// and uses a class of quota. The methods of [`Route`] describe the rest.
pub(crate) fn route<H, T>(
    verb: Verb,
    path: &'static str,
    needs: impl Into<Needs>,
    quota: QuotaClass,
    handler: H,
) -> Route
where
    H: Handler<T, ApiState, Future = HandlerFuture>,
    T: 'static,
{
    Route {
        verb,
        path,
        requirement: Requirement {
            needs: needs.into(),
            quota,
            shows_payloads: false,
            all_namespaces: false,
            in_outages: false,
        },
        place: Place::Serving,
        description: Description::default(),
        build: Box::new(move |serving| on(verb.filter(), Guarded { handler, serving })),
    }
}

impl Route {
    /// Marks the answer as one that holds payloads: inputs, outputs, logs or the store.
    pub(crate) fn shows_payloads(mut self) -> Self {
        self.requirement.shows_payloads = true;
        self
    }

    /// Requires a key that is valid for all namespaces, although the path names one: the route
    /// changes what bounds the holders of keys of that namespace.
    pub(crate) fn for_all_namespaces(mut self) -> Self {
        self.requirement.all_namespaces = true;
        self
    }

    /// Answers also while the database is away, to keys that were valid before.
    pub(crate) fn in_outages(mut self) -> Self {
        self.requirement.in_outages = true;
        self
    }

    /// Runs the handler on the work runtime, off the threads that serve requests.
    pub(crate) fn offloaded(mut self) -> Self {
        self.place = Place::Work;
        self
    }

    /// Runs the handler on the work runtime, unless the body of the request is short.
    pub(crate) fn offloaded_if_long(mut self) -> Self {
        self.place = Place::WorkIfLong;
        self
    }
}

/// Returns the router of some routes.
pub(crate) fn router(routes: Vec<Route>) -> Router<ApiState> {
    let add = |router: Router<ApiState>, (position, route): (usize, Route)| {
        let takes_query = !route.description.query.is_empty();
        let Route { requirement, place, .. } = route;
        let handler = (route.build)(Serving { requirement, place, takes_query, position });
        router.route(route.path, handler)
    };
    routes.into_iter().enumerate().fold(Router::new(), add)
}

/// The future of a handler.
pub(crate) type HandlerFuture = Pin<Box<dyn Future<Output = Response> + Send>>;

/// A handler with the requirement of its route. It is a handler itself: a layer of the router
/// would cost every request some allocations.
#[derive(Clone)]
struct Guarded<H> {
    handler: H,
    serving: Serving,
}

/// The way in which a route serves its requests.
#[derive(Clone, Copy)]
struct Serving {
    requirement: Requirement,
    place: Place,
    /// Set if the route has query parameters.
    takes_query: bool,
    /// The position in the list of routes.
    position: usize,
}

impl<H, T> Handler<T, ApiState> for Guarded<H>
where
    H: Handler<T, ApiState, Future = HandlerFuture>,
    T: 'static,
{
    type Future = HandlerFuture;

    fn call(self, request: Request, mut state: ApiState) -> HandlerFuture {
        if let Some(context) = request.extensions().get::<RequestContext>() {
            context.route.set(self.serving.position);
        }
        match access::decide(&state.host, state.asks_for_keys, self.serving.requirement, &request) {
            Decision::Admitted(host) => {
                state.host = host;
                self.serve(request, state)
            }
            Decision::Refused(problem) => Box::pin(ready(problem.into_response())),
            Decision::Pending(pending) => Box::pin(async move {
                match pending.resolve(&state.host).await {
                    Ok(host) => {
                        state.host = host;
                        self.serve(request, state).await
                    }
                    Err(problem) => problem.into_response(),
                }
            }),
        }
    }
}

impl<H> Guarded<H> {
    /// Serves an admitted request.
    fn serve<T>(self, mut request: Request, state: ApiState) -> HandlerFuture
    where
        H: Handler<T, ApiState, Future = HandlerFuture>,
        T: 'static,
    {
        let Serving { requirement, takes_query, .. } = self.serving;
        if !takes_query && let Err(problem) = query::refuse_any(request.uri()) {
            return Box::pin(ready(problem.into_response()));
        }
        request.extensions_mut().insert(requirement);
        let host = state.host.clone();
        if requirement.shows_payloads && !host.may_show_payloads() {
            let answer = self.run(request, state, host);
            return Box::pin(async { withhold(answer.await).await });
        }
        self.run(request, state, host)
    }

    /// Runs the handler in its place.
    fn run<T>(self, request: Request, state: ApiState, host: Host) -> HandlerFuture
    where
        H: Handler<T, ApiState, Future = HandlerFuture>,
        T: 'static,
    {
        match self.serving.place {
            Place::Serving => self.handler.call(request, state),
            Place::Work => Box::pin(offload(host, self.handler.call(request, state))),
            Place::WorkIfLong => offload_long(&host, request, |it| self.handler.call(it, state)),
        }
    }
}
