//! The network, shared by all guests: it resolves names, checks the addresses, and
//! connects to the checked addresses without a second look-up.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use exosphere_domain::grant::{HttpHost, Scheme};
use ipnet::IpNet;
use rustls::client::Resumption;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::address::is_allowed;
use super::errors::{from_connect, from_tls};
use super::target::Target;

/// The default maximum number of connections that all guests of a host have open together.
const MAX_CONNECTIONS: usize = 256;

/// The maximum number of concurrent name look-ups. Each takes a thread and cannot be stopped.
const MAX_LOOKUPS: usize = 16;

/// The maximum number of addresses that are tried for a name, and the connect timeout of each
/// but the last.
const MAX_ADDRESSES: usize = 4;
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(3);

/// The operator's HTTP configuration. A grant says which requests a plugin may make;
/// this configures the host's own network, for all plugins.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Networks outside the public internet to which guests may connect. None by
    /// default.
    pub allow_nets: Vec<IpNet>,
    /// Certificates (X.509, DER) that are trusted in addition to the system's.
    pub extra_roots: Vec<Vec<u8>>,
    /// The maximum number of connections that all guests together may have open; further
    /// requests wait. At least 1.
    pub max_connections: usize,
}

impl Default for HttpConfig {
    fn default() -> HttpConfig {
        HttpConfig {
            allow_nets: Vec::new(),
            extra_roots: Vec::new(),
            max_connections: MAX_CONNECTIONS,
        }
    }
}

/// A byte stream in both directions: TCP or TLS.
pub(super) trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> ByteStream for T {}

/// The shared network access of all guests.
pub(crate) struct Network {
    config: HttpConfig,
    connections: Arc<Semaphore>,
    lookups: Arc<Semaphore>,
    // Made on the first use, because reading the system's certificates is slow.
    tls: OnceCell<TlsConnector>,
}

impl Network {
    pub(crate) fn new(config: HttpConfig) -> Network {
        Network {
            connections: Arc::new(Semaphore::new(config.max_connections.max(1))),
            lookups: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            tls: OnceCell::new(),
            config,
        }
    }

    /// Waits for a connection permit. The semaphore is never closed, so this always
    /// returns one.
    pub(super) async fn connection(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.connections).acquire_owned().await.ok()
    }

    /// Connects to a request's target.
    pub(super) async fn connect(&self, target: &Target) -> Result<Box<dyn ByteStream>, Error> {
        let stream = self.connect_first(&self.addresses(target).await?).await?;
        // Requests are written whole; Nagle's algorithm would only delay them.
        let _ = stream.set_nodelay(true);
        if target.scheme == Scheme::Http {
            return Ok(Box::new(stream));
        }
        let name = server_name(&target.host).map_err(|_| Error::HttpRequestUriInvalid)?;
        let tls = self.tls().await?;
        Ok(Box::new(tls.connect(name, stream).await.map_err(|error| from_tls(&error))?))
    }

    /// Resolves the addresses that a request may be sent to, in the order of the
    /// answer.
    async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, Error> {
        let found = match &target.host {
            HttpHost::Ip(ip) => vec![SocketAddr::new(*ip, target.port)],
            HttpHost::Name(name) => self.look_up(name.clone(), target.port).await?,
        };
        let mut allowed = found.clone();
        allowed.retain(|address| is_allowed(address.ip(), &self.config.allow_nets));
        allowed.truncate(MAX_ADDRESSES);
        match (allowed.is_empty(), found.first()) {
            (false, _) => Ok(allowed),
            (true, Some(_)) => Err(Error::DestinationIpProhibited),
            (true, None) => Err(Error::DnsError { rcode: None, info_code: None }),
        }
    }

    async fn look_up(&self, name: String, port: u16) -> Result<Vec<SocketAddr>, Error> {
        let permit = Arc::clone(&self.lookups).acquire_owned().await.ok();
        let found = tokio::task::spawn_blocking(move || {
            // The thread holds the permit, because the look-up continues after its caller is gone.
            let _permit = permit;
            (name.as_str(), port).to_socket_addrs().map(Iterator::collect)
        });
        match found.await {
            Ok(Ok(addresses)) => Ok(addresses),
            Ok(Err(error)) => {
                tracing::debug!(%error, "a name was not found for a guest");
                let rcode = Some("the name was not found".to_owned());
                Err(Error::DnsError { rcode, info_code: None })
            }
            Err(error) => {
                tracing::error!(%error, "a lookup ended early");
                Err(Error::InternalError(None))
            }
        }
    }

    /// Connects to the first address that answers.
    async fn connect_first(&self, addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
        let mut left = addresses.len();
        let mut failed = Error::DestinationNotFound;
        for address in addresses {
            left -= 1;
            let connect = TcpStream::connect(address);
            let connected = match left {
                0 => Some(connect.await),
                _ => timeout(ADDRESS_TIMEOUT, connect).await.ok(),
            };
            failed = match connected {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => from_connect(&error),
                None => Error::ConnectionTimeout,
            };
        }
        Err(failed)
    }

    async fn tls(&self) -> Result<&TlsConnector, Error> {
        let connector_result = self.tls.get_or_try_init(|| async {
            let extra = self.config.extra_roots.clone();
            let connector_result = tokio::task::spawn_blocking(move || connector(extra)).await;
            connector_result.map_err(|error| error.to_string()).flatten()
        });
        connector_result.await.map_err(|cause| {
            tracing::error!(cause, "guests cannot use https");
            Error::ConfigurationError
        })
    }
}

/// Builds the TLS connector. It keeps no session between connections, because a session would
/// tell a server that two guests share a host.
fn connector(extra_roots: Vec<Vec<u8>>) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(native.certs);
    for root in extra_roots {
        let added = roots.add(CertificateDer::from(root));
        added.map_err(|error| format!("an extra root certificate is not valid: {error}"))?;
    }
    if roots.is_empty() {
        let cause = native.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(format!(
            "the system has no root certificates{cause}; install them (`ca-certificates`)"
        ));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| error.to_string())?;
    let mut config = config.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Returns the name that the server's certificate must carry.
fn server_name(host: &HttpHost) -> Result<ServerName<'static>, InvalidDnsNameError> {
    match host {
        HttpHost::Name(name) => ServerName::try_from(name.clone()),
        HttpHost::Ip(ip) => Ok(ServerName::from(*ip)),
    }
}
