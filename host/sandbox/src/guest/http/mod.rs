//! `wasi:http`: outgoing requests of a guest, as far as they are granted. Every guest
//! may import it; without a grant each request is denied, and the guest's log says why.
//!
//! This module, `target` and `headers` decide which request is allowed, before any name
//! look-up. `network` decides by `address` where it may connect. The exchange itself is
//! a `call`, whose bodies `body` counts. `link` adds the functions to a linker.
//!
//! The host follows no redirect: the guest sees it, and its next request is checked like
//! any other. No connection is used twice, so no guest meets data that another guest
//! left on one.

mod address;
mod body;
mod call;
mod errors;
mod headers;
mod link;
mod network;
mod target;

use std::sync::Arc;

use exosphere_domain::grant::{BadPath, Grants};
use exosphere_domain::limits::{Limit, Limits};
use http::{HeaderName, HeaderValue, Request};
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::{
    Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks,
};

use crate::guest::context::Context;
use crate::guest::log::{LogLevel, SharedLogs};
use crate::limits::signal::LimitSignal;
use body::Traffic;
use call::{Answer, Call};
use headers::HostHeaders;
use target::{BadTarget, Target};

pub(crate) use headers::HEADERS_TOO_LARGE;
pub(crate) use link::link;
pub use network::HttpConfig;
pub(crate) use network::Network;

/// Maximum bytes that a guest may write to a request's body at a time. For each open body, two
/// such chunks wait for the network.
const MAX_CHUNK_BYTES: usize = 16 * 1024;

/// The HTTP state of one guest.
pub(crate) struct Http {
    ctx: WasiHttpCtx,
    hooks: Hooks,
}

/// The engine's hooks, which decide on a guest's requests.
struct Hooks {
    network: Arc<Network>,
    grants: Arc<Grants>,
    logs: SharedLogs,
    limit_signal: Arc<LimitSignal>,
    traffic: Arc<Traffic>,
    limits: Limits,
    idempotency_key: String,
    /// The header `traceparent` of every request.
    traceparent: Option<HeaderValue>,
    /// The namespace and the name of the plugin, for the grant command in the log.
    grantee: (String, String),
    requests: u64,
    /// The reason why the latest request was denied, if it was.
    denied: Option<String>,
}

impl Http {
    /// Creates the HTTP state of one execution.
    pub(crate) fn new(
        network: Arc<Network>,
        grants: Arc<Grants>,
        context: &Context,
        (limits, logs, limit_signal): (&Limits, &SharedLogs, &Arc<LimitSignal>),
    ) -> Http {
        let mut ctx = WasiHttpCtx::new();
        ctx.set_field_size_limit(headers::MAX_FIELDS_BYTES);
        let hooks = Hooks {
            network,
            idempotency_key: if grants.idempotency_header {
                context.idempotency_key.clone()
            } else {
                String::new()
            },
            traceparent: context.traceparent.as_ref().and_then(|it| HeaderValue::try_from(it).ok()),
            grantee: (context.namespace.clone(), context.plugin.clone()),
            grants,
            logs: logs.clone(),
            limit_signal: Arc::clone(limit_signal),
            traffic: Arc::default(),
            limits: limits.clone(),
            requests: 0,
            denied: None,
        };
        Http { ctx, hooks }
    }

    /// Returns the state as the engine's functions work on it.
    pub(super) fn view<'a>(&'a mut self, table: &'a mut ResourceTable) -> WasiHttpCtxView<'a> {
        let Http { ctx, hooks } = self;
        WasiHttpCtxView { ctx, hooks, table }
    }

    /// Takes the reason why the guest's latest request was denied, if it was. The next attempt
    /// would be denied it again.
    pub(crate) fn take_denied(&mut self) -> Option<String> {
        self.hooks.denied.take()
    }

    /// Returns the bytes of all request bodies that the guest sent.
    pub(crate) fn sent(&self) -> u64 {
        self.hooks.traffic.sent()
    }

    /// Returns the bytes of all response bodies that the guest received.
    pub(crate) fn received(&self) -> u64 {
        self.hooks.traffic.received()
    }
}

impl WasiHttpHooks for Hooks {
    fn is_forbidden_header(&mut self, name: &HeaderName) -> bool {
        let is_forbidden = headers::is_forbidden(name, self.grants.idempotency_header);
        if is_forbidden {
            // If the guest handles the refusal, it makes its request next.
            self.denied = Some(format!("a node may not set the header {name}"));
        }
        is_forbidden
    }

    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        let has_key = self.grants.idempotency_header;
        Arc::new(move |name| headers::is_forbidden(name, has_key))
    }

    /// Returns `false`: the host header comes from the checked target, not from the guest.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        MAX_CHUNK_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Answer> + Send> {
        match self.authorize(request, options.unwrap_or_default()) {
            Ok(call) => Box::new(call.run()),
            Err(error) => Box::new(std::future::ready(Err(error))),
        }
    }
}

impl Hooks {
    /// Builds the call of a request, if the guest may make it.
    fn authorize(
        &mut self,
        request: Request<WasiBody>,
        timeouts: RequestOptions,
    ) -> Result<Call, Error> {
        self.requests = self.requests.saturating_add(1);
        self.denied = None;
        if self.requests > self.limits.get(Limit::HttpCalls) {
            self.limit_signal.report(Limit::HttpCalls);
            return Err(Error::HttpRequestDenied);
        }
        let (parts, body) = request.into_parts();
        let target = Target::parse(&parts.method, &parts.uri);
        let target = target.map_err(|cause| self.refuse_malformed(&cause))?;
        if !target.is_granted(&self.grants) {
            return Err(self.deny(&target));
        }
        let host = target.host_header().ok_or(Error::HttpRequestUriInvalid)?;
        let (idempotency_key, traceparent) = (self.key()?, self.traceparent.clone());
        let of_host = HostHeaders { host, idempotency_key, traceparent };
        let headers = headers::outgoing(parts.headers, of_host);
        let headers = headers.inspect_err(|_| {
            self.denied =
                Some("its headers are too many, or a node may not set one of them".into());
        })?;
        Ok(Call {
            network: Arc::clone(&self.network),
            target,
            headers,
            body,
            timeouts,
            limits: self.limits.clone(),
            logs: self.logs.clone(),
            limit_signal: Arc::clone(&self.limit_signal),
            traffic: Arc::clone(&self.traffic),
        })
    }

    /// Returns the idempotency key of this request, if one is to be sent: the key of
    /// the work and the number of the request. A node that repeats its work makes the
    /// same requests in the same order, so each keeps its key.
    fn key(&self) -> Result<Option<HeaderValue>, Error> {
        if !self.grants.idempotency_header {
            return Ok(None);
        }
        let key = format!("{}/{}", self.idempotency_key, self.requests);
        HeaderValue::try_from(key).map(Some).map_err(|_| Error::InternalError(None))
    }

    fn deny(&mut self, target: &Target) -> Error {
        let (shown, rule) = (target.shown(), target.rule());
        let (namespace, plugin) = &self.grantee;
        let message = format!(
            "{shown} is not granted to the plugin {plugin}; an operator can grant it: \
             `exosphere grant add {plugin} --http \"{rule}\" --namespace {namespace}`"
        );
        self.logs.add_host_line(LogLevel::Warn, &message);
        self.denied = Some(message);
        Error::HttpRequestDenied
    }

    fn refuse_malformed(&mut self, cause: &BadTarget) -> Error {
        let message = format!("a request was refused: {cause}");
        self.logs.add_host_line(LogLevel::Warn, &message);
        self.denied = Some(message);
        match cause {
            BadTarget::Scheme | BadTarget::Connect => Error::HttpRequestDenied,
            BadTarget::Path(BadPath::TooLong) => Error::HttpRequestUriTooLong,
            BadTarget::Host(_) | BadTarget::Path(_) | BadTarget::Query => {
                Error::HttpRequestUriInvalid
            }
        }
    }
}
