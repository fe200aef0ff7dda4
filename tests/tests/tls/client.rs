//! A client of a host with TLS, and the certificates of the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Result, ensure};
use exosphere_tests::{Host, checkout};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The protocols that a client offers.
pub const HTTP_1: &[&str] = &["http/1.1"];
pub const BOTH: &[&str] = &["h2", "http/1.1"];

pub fn certificate(name: &str) -> PathBuf {
    checkout().join("tests/certificates").join(format!("{name}.pem"))
}

/// Copies a certificate and its key to the files that the host follows. Each appears whole.
pub fn install(folder: &Path, name: &str) -> Result<()> {
    for kind in ["key", "cert"] {
        let draft = folder.join("draft");
        std::fs::copy(certificate(&format!("{name}.{kind}")), &draft)?;
        std::fs::rename(draft, folder.join(kind))?;
    }
    Ok(())
}

/// Starts a host with the first certificate, in a folder, and with further arguments.
pub fn start(folder: &Path, further: &[&str]) -> Result<Host> {
    install(folder, "first")?;
    let file = |name: &str| folder.join(name).to_string_lossy().into_owned();
    let (cert, key) = (file("cert"), file("key"));
    let arguments = [&["--tls-cert", &cert, "--tls-key", &key], further].concat();
    let host = Host::start_with(&folder.join("data"), &arguments, |_| ())?;
    ensure!(host.url().starts_with("https://"), "{}", host.url());
    Ok(host)
}

/// A client that trusts both certificates.
#[derive(Clone)]
pub struct Client {
    connector: TlsConnector,
    pub address: String,
    pub authorization: String,
}

impl Client {
    /// Creates a client that offers some protocols.
    pub fn new(host: &Host, protocols: &[&str]) -> Result<Client> {
        let mut roots = RootCertStore::empty();
        for name in ["first", "second"] {
            roots.add(CertificateDer::from_pem_file(certificate(&format!("{name}.cert")))?)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        // A resumed session shows the certificate of the first one.
        config.resumption = rustls::client::Resumption::disabled();
        config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        Ok(Client {
            connector: TlsConnector::from(Arc::new(config)),
            address: host.url().trim_start_matches("https://").to_owned(),
            authorization: host.authorization(),
        })
    }

    pub async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        let name = ServerName::try_from("localhost")?;
        Ok(self.connector.connect(name, stream).await?)
    }

    /// Sends a request of HTTP/1.1 on a connection, which must be answered with 200.
    pub async fn request(&self, stream: &mut TlsStream<TcpStream>) -> Result<()> {
        let request = format!(
            "GET /v1/namespaces/default/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: {}\r\n\r\n",
            self.authorization
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"}") {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the connection was closed");
        }
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        Ok(())
    }
}
