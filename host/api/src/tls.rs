//! TLS of the API: the certificate and its key are read from files, and read again when a file
//! changes. Open connections keep the certificate with which they began.
//!
//! Not here: the connections (`connections`).

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, SupportedProtocolVersion};
use tokio_rustls::TlsAcceptor;

/// The largest file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Interval between two looks at the files.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// The protocols that the API speaks (ALPN).
pub(crate) const HTTP_2: &[u8] = b"h2";
const HTTP_1_1: &[u8] = b"http/1.1";

/// Versions of TLS that are accepted.
const VERSIONS: [&SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];

/// The reason why a certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {file}: {error}")]
    Read {
        /// The path of the file.
        file: String,
        /// The error of the system.
        error: io::Error,
    },
    /// The certificate file has no certificate.
    #[error("{0} has no certificate: give a chain in PEM format, the host's own certificate first")]
    NoCertificate(String),
    /// The key file has no private key.
    #[error("{file} has no private key: {error}; give one in PEM format, without a passphrase")]
    NoKey {
        /// The path of the file.
        file: String,
        /// The error of the parser.
        error: rustls::pki_types::pem::Error,
    },
    /// The certificate and the key do not fit.
    #[error("{cert} and {key} cannot be used together: {error}")]
    Mismatch {
        /// The path of the certificate.
        cert: String,
        /// The path of the key.
        key: String,
        /// The error of the library.
        error: rustls::Error,
    },
    /// The library cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    SetUp(rustls::Error),
}

/// The TLS of a listener.
#[derive(Clone)]
pub struct Tls {
    acceptor: TlsAcceptor,
    /// The acceptor of connections that serve one request at a time.
    http1_acceptor: TlsAcceptor,
    files: Arc<Files>,
    current: Arc<CurrentCert>,
}

struct Files {
    cert: PathBuf,
    key: PathBuf,
    provider: Arc<CryptoProvider>,
}

/// The current certificate with its key.
#[derive(Debug)]
struct CurrentCert(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for CurrentCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

/// The signs of a changed file: its inode, size and time of change.
type Fingerprint = Option<(u64, u64, i64, i64)>;

impl Tls {
    /// Loads a certificate chain and its private key, both in PEM format.
    ///
    /// # Errors
    ///
    /// If a file cannot be read, or the two do not fit.
    pub fn load(cert: PathBuf, key: PathBuf) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let files = Files { cert, key, provider: provider.clone() };
        let current = Arc::new(CurrentCert(RwLock::new(Arc::new(files.read()?))));
        let config = ServerConfig::builder_with_provider(provider);
        let config = config.with_protocol_versions(&VERSIONS).map_err(TlsError::SetUp)?;
        let mut config = config.with_no_client_auth().with_cert_resolver(current.clone());
        config.alpn_protocols = vec![HTTP_1_1.to_vec()];
        let http1_acceptor = TlsAcceptor::from(Arc::new(config.clone()));
        config.alpn_protocols.insert(0, HTTP_2.to_vec());
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Tls { acceptor, http1_acceptor, files: Arc::new(files), current })
    }

    /// Returns the acceptor of a connection, with HTTP/2 or without.
    pub(crate) fn acceptor(&self, has_http2: bool) -> TlsAcceptor {
        if has_http2 { self.acceptor.clone() } else { self.http1_acceptor.clone() }
    }

    /// Reads the files again whenever one changes. An invalid pair is logged, and the current one
    /// stays. Never returns.
    pub(crate) async fn follow(&self) {
        let mut known = self.files.fingerprints();
        loop {
            tokio::time::sleep(POLL_INTERVAL).await;
            let files = self.files.clone();
            let look = move || {
                let found = files.fingerprints();
                (found != known).then(|| (found, files.read()))
            };
            let Ok(Some((found, read))) = tokio::task::spawn_blocking(look).await else { continue };
            known = found;
            match read {
                Ok(new) => {
                    *self.current.0.write() = Arc::new(new);
                    tracing::info!("the certificate was read again");
                }
                Err(error) => {
                    tracing::warn!(%error, "the changed certificate is not used; the earlier one stays");
                }
            }
        }
    }
}

impl Files {
    fn read(&self) -> Result<CertifiedKey, TlsError> {
        let (cert, key) = (self.cert.display().to_string(), self.key.display().to_string());
        let chain = CertificateDer::pem_slice_iter(&bytes(&self.cert)?).collect::<Result<_, _>>();
        let chain: Vec<_> = chain.map_err(|_| TlsError::NoCertificate(cert.clone()))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(cert));
        }
        let private = PrivateKeyDer::from_pem_slice(&bytes(&self.key)?);
        let private = private.map_err(|error| TlsError::NoKey { file: key.clone(), error })?;
        CertifiedKey::from_der(chain, private, &self.provider).map_err(|error| TlsError::Mismatch {
            cert,
            key,
            error,
        })
    }

    fn fingerprints(&self) -> [Fingerprint; 2] {
        [&self.cert, &self.key].map(|file| {
            let found = std::fs::metadata(file).ok()?;
            Some((found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
        })
    }
}

fn bytes(file: &Path) -> Result<Vec<u8>, TlsError> {
    let read = File::open(file).and_then(|open| {
        let mut bytes = Vec::new();
        open.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    });
    read.map_err(|error| TlsError::Read { file: file.display().to_string(), error })
}
