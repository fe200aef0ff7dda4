//! One HTTP request, from its connection to the end of the response.

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

use super::body::{ByteCounter, Direction, ReadTimeout, RequestBody, ResponseBody, Traffic};
use super::errors::{explain, from_hyper};
use super::headers::MAX_HEADERS;
use super::network::{ByteStream, Network};
use super::target::Target;
use crate::guest::log::{LogLevel, SharedLogs};
use crate::limits::signal::LimitSignal;

/// Bytes of the read buffer of a response; its headers must fit in.
const READ_BYTES: usize = 64 * 1024;

/// The future that drives a connection while the guest reads the response.
pub(super) type Driver = Box<dyn Future<Output = Result<(), Error>> + Send>;

/// The response to a request, its body still on the way, or its error.
pub(super) type Answer = Result<(Response<WasiBody>, Driver), Error>;

/// A granted request.
pub(super) struct Call {
    pub(super) network: Arc<Network>,
    pub(super) target: Target,
    pub(super) headers: HeaderMap,
    pub(super) body: WasiBody,
    pub(super) timeouts: RequestOptions,
    pub(super) limits: Limits,
    pub(super) logs: SharedLogs,
    pub(super) limit_signal: Arc<LimitSignal>,
    pub(super) traffic: Arc<Traffic>,
}

type Connection = http1::Connection<TokioIo<Box<dyn ByteStream>>, RequestBody>;

impl Call {
    /// Sends the request. Dropping the future, or its response, closes the connection.
    pub(super) async fn run(self) -> Answer {
        // Other guests may hold all connections, which is not this guest's fault. So
        // the timeout of the request starts later; the deadline of the attempt already
        // applies.
        let permit = self.network.connection().await;
        let deadline = Instant::now() + self.limits.time(Limit::HttpCallMs);
        let (limit_signal, logs, shown) =
            (Arc::clone(&self.limit_signal), self.logs.clone(), self.target.shown());
        match timeout_at(deadline, self.exchange(permit, deadline)).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                logs.add_host_line(LogLevel::Warn, &format!("{shown} failed: {}", explain(&error)));
                Err(error)
            }
            Err(_) => {
                limit_signal.report(Limit::HttpCallMs);
                Err(Error::HttpResponseTimeout)
            }
        }
    }

    async fn exchange(self, permit: Option<OwnedSemaphorePermit>, deadline: Instant) -> Answer {
        let connect = self.network.connect(&self.target);
        let stream = within(self.timeouts.connect_timeout, connect).await;
        let stream = stream.unwrap_or(Err(Error::ConnectionTimeout))?;
        let mut settings = http1::Builder::new();
        settings.max_headers(MAX_HEADERS).max_buf_size(READ_BYTES);
        let opened = settings.handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(from_hyper)?;
        let counter = |direction, limit| {
            ByteCounter::new(direction, self.limits.get(limit), &self.traffic, &self.limit_signal)
        };
        let body = RequestBody {
            body: self.body,
            counter: counter(Direction::Request, Limit::HttpRequestBytes),
        };
        let counter = counter(Direction::Response, Limit::HttpResponseBytes);
        let request = request(self.target, self.headers, body)?;
        let sending = pin!(sender.send_request(request));
        let answered = answer(sending, connection);
        let answered = within(self.timeouts.first_byte_timeout, answered).await;
        let (response, connection) = answered.unwrap_or(Err(Error::ConnectionReadTimeout))?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Error::HttpUpgradeFailed);
        }
        let is_over = Arc::new(AtomicBool::new(false));
        let read_timeout = self.timeouts.between_bytes_timeout.map(ReadTimeout::new);
        let body = |body| {
            ResponseBody::new(body, counter, read_timeout, Arc::clone(&is_over)).boxed_unsync()
        };
        let response = response.map(body);
        let driver: Driver = Box::new(async move {
            let _permit = permit;
            if let Some(connection) = connection
                && timeout_at(deadline, connection).await.is_err()
                && !is_over.load(Relaxed)
            {
                self.limit_signal.report(Limit::HttpCallMs);
            }
            // The reader of the body gets the error that broke it off.
            Ok(())
        });
        Ok((response, driver))
    }
}

/// Builds the request as it is written: path only, since only proxies get the full URI.
fn request(
    target: Target,
    headers: HeaderMap,
    body: RequestBody,
) -> Result<Request<RequestBody>, Error> {
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
        Either::Left((response, connection)) => {
            Ok((response.map_err(from_hyper)?, Some(connection)))
        }
        Either::Right((ended, sending)) => {
            ended.map_err(from_hyper)?;
            Ok((sending.await.map_err(from_hyper)?, None))
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
