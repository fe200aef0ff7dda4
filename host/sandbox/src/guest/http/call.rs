//! One HTTP request, from its connection to the end of the response.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use exosphere_domain::limits::{Limit, Limits};
use futures::future::{Either, select};
use http::{HeaderMap, Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::body::{Gauge, Outgoing, Patience, Received, Traffic, Way};
use super::headers::MAX_HEADERS;
use super::network::{Network, Wire};
use super::target::Target;
use super::{Answer, Driver};
use crate::guest::log::{LogLevel, SharedLogs};
use crate::limits::signal::Breach;

/// Bytes of the read buffer of a response; its headers must fit in.
const READ_BYTES: usize = 64 * 1024;

/// A granted request.
pub(super) struct Call {
    pub(super) network: Arc<Network>,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: WasiBody,
    pub(super) timeouts: RequestOptions,
    pub(super) limits: Limits,
    pub(super) logs: SharedLogs,
    pub(super) breach: Arc<Breach>,
    pub(super) traffic: Arc<Traffic>,
}

type Connection = http1::Connection<TokioIo<Box<dyn Wire>>, Outgoing>;

impl Call {
    /// Makes the request. Dropping the future, or its response, closes the connection.
    pub(super) async fn run(self) -> Answer {
        // Other guests may hold all connections, which is not this guest's fault. So
        // the timeout of the request starts later; the deadline of the attempt already
        // applies.
        let permit = self.network.connection().await;
        let until = Instant::now() + self.limits.time(Limit::HttpCallMs);
        let (breach, logs, shown) =
            (Arc::clone(&self.breach), self.logs.clone(), self.target.shown());
        match timeout_at(until, self.exchange(permit, until)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                logs.note(LogLevel::Warn, &format!("{shown} failed: {}", explained(&error)));
                Err(error)
            }
            Err(_) => {
                breach.report(Limit::HttpCallMs);
                Err(Error::HttpResponseTimeout)
            }
        }
    }

    async fn exchange(self, permit: Option<OwnedSemaphorePermit>, until: Instant) -> Answer {
        let connect = self.network.connect(&self.target);
        let wire = within(self.timeouts.connect_timeout, connect).await;
        let wire = wire.unwrap_or(Err(Error::ConnectionTimeout))?;
        let mut settings = http1::Builder::new();
        settings.max_headers(MAX_HEADERS).max_buf_size(READ_BYTES);
        let opened = settings.handshake(TokioIo::new(wire)).await;
        let (mut sender, connection) = opened.map_err(of_hyper)?;
        let gauge =
            |way, limit| Gauge::new(way, self.limits.get(limit), &self.traffic, &self.breach);
        let body = Outgoing { body: self.body, gauge: gauge(Way::Out, Limit::HttpRequestBytes) };
        let gauge = gauge(Way::In, Limit::HttpResponseBytes);
        let request = request(self.target, self.headers, body)?;
        let sending = pin!(sender.send_request(request));
        let answered = answer(sending, connection);
        let answered = within(self.timeouts.first_byte_timeout, answered).await;
        let (response, connection) = answered.unwrap_or(Err(Error::ConnectionReadTimeout))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::HttpUpgradeFailed);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let patience = self.timeouts.between_bytes_timeout.map(Patience::new);
        let body = |body| Received::new(body, gauge, patience, Arc::clone(&is_over)).boxed_unsync();
        let response = response.map(body);
        let driver: Driver = Box::new(async move {
            let _permit = permit;
            if let Some(connection) = connection
                && timeout_at(until, connection).await.is_err()
                && !is_over.load(Relaxed)
            {
                self.breach.report(Limit::HttpCallMs);
            }
            // The reader of the body gets the error that broke it off.
            Ok(())
        });
        Ok((response, driver))
    }
}

/// Builds the request as it is written: path only, since only proxies get the full URI.
fn request(target: Target, headers: HeaderMap, body: Outgoing) -> Result<Request<Outgoing>, Error> {
    let mut request = Request::new(body);
    *request.method_mut() = target.method;
    *request.uri_mut() = Uri::from(target.path);
    *request.headers_mut() = headers;
    Ok(request)
}

/// Waits for the head of the response, driving the connection. Returns the connection
/// too, unless it has ended.
async fn answer(
    sending: impl Future<Output = hyper::Result<Response<Incoming>>> + Unpin,
    connection: Connection,
) -> Result<(Response<Incoming>, Option<Connection>), Error> {
    match select(sending, connection).await {
        Either::Left((response, connection)) => Ok((response.map_err(of_hyper)?, Some(connection))),
        Either::Right((ended, sending)) => {
            ended.map_err(of_hyper)?;
            Ok((sending.await.map_err(of_hyper)?, None))
        }
    }
}

/// Waits for a future, up to the guest's timeout if it set one.
async fn within<T>(time: Option<Duration>, work: impl Future<Output = T>) -> Option<T> {
    match time {
        Some(time) => timeout(time, work).await.ok(),
        None => Some(work.await),
    }
}

/// Explains an error to the guest's author, with a remedy.
fn explained(error: &Error) -> String {
    match error {
        Error::DestinationIpProhibited => "its host leads to an address that is not on the public internet; the operator of this host can allow its network: `exosphere serve --http-allow-net NETWORK`".to_owned(),
        Error::ConfigurationError => "https cannot be used on this host; its log says why".to_owned(),
        other => other.to_string(),
    }
}

/// Maps an error of the HTTP exchange to an error code of WASI.
pub(super) fn of_hyper(error: hyper::Error) -> Error {
    let source = std::error::Error::source(&error);
    // The body of the request ended the exchange.
    if let Some(own) = source.and_then(|source| source.downcast_ref::<Error>()) {
        return match own {
            Error::HttpRequestBodySize(size) => Error::HttpRequestBodySize(*size),
            _ => Error::HttpProtocolError,
        };
    }
    let io = source.and_then(|source| source.downcast_ref::<io::Error>());
    let is_cut_short = io.is_some_and(|io| io.kind() == io::ErrorKind::UnexpectedEof);
    if is_cut_short || error.is_incomplete_message() {
        Error::HttpResponseIncomplete
    } else if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else if error.is_parse() {
        Error::HttpProtocolError
    } else if error.is_timeout() {
        Error::HttpResponseTimeout
    } else {
        Error::ConnectionTerminated
    }
}
