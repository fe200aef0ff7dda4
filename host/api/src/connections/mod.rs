//! Connections of the API: accepts them within their limits, serves them, and closes those that are
//! idle or slow.
//!
//! Not here: the deadlines of a connection (`activity`), the choice of one to close for a new one
//! (`registry`), routes, and bodies, which have timeouts of their own (`body`).

mod activity;
mod answer_body;
mod registry;
mod service;

use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use crate::metrics::ApiMetrics;
use crate::tls::{HTTP_2, Tls};

use activity::{Activity, Overdue, Timeouts, Watched};
use registry::{Admission, ConnectionPermit, Peer, Registry};
use service::ConnectionService;

/// Limits on the connections of the API, as set by the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// Maximum total number of connections, besides those reserved for health, metrics and
    /// cancels.
    pub max_connections: usize,
    /// Maximum number of connections per peer: an IPv4 address, or a /64 network of IPv6.
    pub max_per_peer: usize,
    /// Timeout for the headers of a request.
    pub header_timeout: Duration,
    /// Timeout between two requests on one connection.
    pub idle_timeout: Duration,
}

/// Header timeout on a reserved connection, which many peers may need.
const RESERVED_HEADER_TIMEOUT: Duration = Duration::from_secs(2);

/// The read buffer of a connection, in bytes: the longest headers, or one piece of a
/// body.
const BUFFER_BYTES: usize = 64 * 1024;

/// The maximum number of requests at a time on one connection of HTTP/2.
const MAX_STREAMS: u32 = 16;

/// The bytes of bodies that a peer may send ahead on one connection of HTTP/2, of one request and
/// of all.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;

/// The bytes of an answer that are held for a stream of HTTP/2 beside the answer itself.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// The interval of pings on a connection of HTTP/2, and the timeout of the answer. They find a peer
/// that is gone while a request waits.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// The shortest and the longest backoff after a failed `accept`.
const ACCEPT_BACKOFF: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(50));

/// The longest wait for a connection that was told to close.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(100);

/// The parts that all connections share.
pub(crate) struct Served {
    pub router: Router,
    /// Set if the host listens on the loopback only: then it refuses requests for other hosts.
    pub local: bool,
    pub metrics: Arc<ApiMetrics>,
}

/// Serves the routes until `stop` resolves. Then it closes idle connections immediately and
/// lets requests under way finish.
pub(crate) async fn serve(
    listener: TcpListener,
    served: Served,
    (limits, tls): (ConnectionLimits, Option<Tls>),
    stop: impl Future<Output = ()>,
) {
    let registry = Registry::new(limits.max_connections, limits.max_per_peer);
    let (stopping, stopped) = watch::channel(());
    let mut stop = pin!(stop);
    let mut backoff = ACCEPT_BACKOFF.0;
    let mut reload = pin!(async {
        match &tls {
            Some(tls) => tls.follow().await,
            None => std::future::pending().await,
        }
    });
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut stop => break,
            () = &mut reload => continue,
        };
        match accepted {
            Ok((stream, address)) => {
                backoff = ACCEPT_BACKOFF.0;
                let Some(permit) =
                    admit(&registry, Peer::from_address(address.ip()), &limits).await
                else {
                    continue;
                };
                let service = ConnectionService::new(&served, address.ip(), &permit);
                // A reserved connection serves one request.
                let acceptor = tls.as_ref().map(|tls| tls.acceptor(!permit.is_reserved));
                tokio::spawn(attend((stream, acceptor), permit, service, stopped.clone()));
            }
            Err(error) if is_caused_by_peer(&error) => {}
            Err(error) => {
                // Once for a series of failures: they may come twenty times a second.
                if backoff == ACCEPT_BACKOFF.0 {
                    tracing::warn!(%error, "cannot accept a connection; the host closes an idle one");
                }
                registry.close_any();
                tokio::time::sleep(backoff).await;
                backoff = (backoff * 2).min(ACCEPT_BACKOFF.1);
            }
        }
    }
    drop((listener, stopping));
    while !registry.is_empty() {
        registry.closed().await;
    }
}

/// Returns whether an accepted connection was broken by its peer before it was served.
fn is_caused_by_peer(error: &Error) -> bool {
    let kinds = [ErrorKind::ConnectionRefused, ErrorKind::ConnectionAborted];
    kinds.contains(&error.kind()) || error.kind() == ErrorKind::ConnectionReset
}

/// Registers a new connection, waiting for another one to close if necessary.
async fn admit(
    registry: &Registry,
    peer: Peer,
    limits: &ConnectionLimits,
) -> Option<ConnectionPermit> {
    let activity = |is_reserved| {
        let ordinary = Timeouts { header: limits.header_timeout, idle: limits.idle_timeout };
        let reserved = RESERVED_HEADER_TIMEOUT.min(limits.header_timeout);
        let reserved = Timeouts { header: reserved, idle: reserved };
        Activity::new(if is_reserved { reserved } else { ordinary })
    };
    loop {
        match registry.admit(peer, activity) {
            Admission::Open(permit) => return Some(permit),
            Admission::Refused => return None,
            Admission::Wait => drop(tokio::time::timeout(CLOSE_TIMEOUT, registry.closed()).await),
        }
    }
}

/// Serves one connection until it closes.
async fn attend(
    (stream, tls): (TcpStream, Option<TlsAcceptor>),
    permit: ConnectionPermit,
    service: ConnectionService,
    mut stopped: watch::Receiver<()>,
) {
    let activity = &*permit.activity;
    let socket = Watched { stream, activity };
    let overdue = Overdue::new(activity);
    let Some(tls) = tls else {
        return converse(socket, overdue, (&permit, Protocol::Http1), service, stopped).await;
    };
    let mut overdue = overdue;
    // The timeout of the headers covers the handshake, too.
    let stream = tokio::select! {
        biased;
        accepted = tls.accept(socket) => accepted,
        () = &mut overdue => return,
        () = permit.close.notified() => return,
        _ = stopped.changed() => return,
    };
    match stream {
        Ok(stream) => {
            let protocol = Protocol::chosen(stream.get_ref().1.alpn_protocol());
            converse(stream, overdue, (&permit, protocol), service, stopped).await;
        }
        Err(error) => tracing::debug!(%error, "a TLS handshake failed"),
    }
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// Returns the protocol that both sides have chosen (ALPN). Without a choice it is HTTP/1.1.
    fn chosen(alpn: Option<&[u8]>) -> Self {
        if alpn == Some(HTTP_2) { Protocol::Http2 } else { Protocol::Http1 }
    }
}

/// Serves the requests of one connection.
async fn converse(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    overdue: Overdue<'_>,
    (permit, protocol): (&ConnectionPermit, Protocol),
    service: ConnectionService,
    stopped: watch::Receiver<()>,
) {
    let socket = TokioIo::new(socket);
    match protocol {
        Protocol::Http1 => {
            let served = http1::Builder::new()
                // `Activity` has a header timeout of its own, which also covers the time
                // between requests.
                .header_read_timeout(None)
                .max_buf_size(BUFFER_BYTES)
                .serve_connection(socket, service);
            drive(served, http1::Connection::graceful_shutdown, overdue, permit, stopped).await;
        }
        Protocol::Http2 => {
            permit.activity.set_multiplexed();
            let served = http2::Builder::new(TokioExecutor::new())
                .timer(TokioTimer::new())
                .max_concurrent_streams(MAX_STREAMS)
                .max_header_list_size(BUFFER_BYTES as u32)
                .initial_stream_window_size(STREAM_WINDOW_BYTES)
                .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .max_send_buf_size(SEND_BUFFER_BYTES)
                .keep_alive_interval(PING_INTERVAL)
                .keep_alive_timeout(PING_TIMEOUT)
                .serve_connection(socket, service);
            drive(served, http2::Connection::graceful_shutdown, overdue, permit, stopped).await;
        }
    }
}

/// Drives a connection until it closes, or has to.
async fn drive<C: Future>(
    served: C,
    shut_down: impl FnOnce(Pin<&mut C>),
    mut overdue: Overdue<'_>,
    permit: &ConnectionPermit,
    mut stopped: watch::Receiver<()>,
) {
    let mut served = pin!(served);
    let mut shut_down = Some(shut_down);
    loop {
        tokio::select! {
            // The connection is polled first, because its progress moves the deadline.
            biased;
            _ = served.as_mut() => return,
            () = &mut overdue => return,
            () = permit.activity.changed() => {}
            () = permit.close.notified() => return,
            // Always an error, because nothing is ever sent: the sender was dropped.
            _ = stopped.changed(), if shut_down.is_some() => {
                if permit.activity.idle_since().is_some() {
                    return;
                }
                if let Some(shut_down) = shut_down.take() {
                    shut_down(served.as_mut());
                }
            }
        }
    }
}
