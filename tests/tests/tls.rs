//! TLS of the API: a client that trusts the certificate is served, and a certificate that changes
//! under load drops no request.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use exosphere_tests::{Host, checkout, failing_start, until};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Requests of a client on one connection.
const REQUESTS_PER_CONNECTION: usize = 5;

/// Number of clients under load.
const CLIENTS: usize = 6;

fn certificate(name: &str) -> PathBuf {
    checkout().join("tests/certificates").join(format!("{name}.pem"))
}

/// Copies a certificate and its key to the files that the host follows. Each appears whole.
fn install(folder: &Path, name: &str) -> Result<()> {
    for kind in ["key", "cert"] {
        let draft = folder.join("draft");
        std::fs::copy(certificate(&format!("{name}.{kind}")), &draft)?;
        std::fs::rename(draft, folder.join(kind))?;
    }
    Ok(())
}

/// A client that trusts both certificates.
#[derive(Clone)]
struct Client {
    connector: TlsConnector,
    address: String,
    authorization: String,
}

impl Client {
    fn new(host: &Host) -> Result<Client> {
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
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Client {
            connector: TlsConnector::from(Arc::new(config)),
            address: host.url().trim_start_matches("https://").to_owned(),
            authorization: host.authorization(),
        })
    }

    async fn connect(&self) -> Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(&self.address).await?;
        let name = ServerName::try_from("localhost")?;
        Ok(self.connector.connect(name, stream).await?)
    }

    /// Sends a request on a connection, which must be answered with 200.
    async fn request(&self, stream: &mut TlsStream<TcpStream>) -> Result<()> {
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

/// Returns the certificate of the host's end of a connection.
fn presented(stream: &TlsStream<TcpStream>) -> Result<Vec<u8>> {
    let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(chain.first().context("an empty chain")?.to_vec())
}

#[test]
fn a_changed_certificate_drops_no_request() -> Result<()> {
    let folder = tempfile::tempdir()?;
    install(folder.path(), "first")?;
    let file = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let arguments = ["--tls-cert", &file("cert"), "--tls-key", &file("key")];
    let host = Host::start_with(&folder.path().join("data"), &arguments, |_| ())?;
    ensure!(host.url().starts_with("https://"), "{}", host.url());
    let client = Client::new(&host)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let first = runtime.block_on(client.connect())?;
    ensure!(first.get_ref().1.alpn_protocol() == Some(&b"http/1.1"[..]));
    let first = presented(&first)?;
    let load = |client: Client| {
        let (stop, answered) = (stop.clone(), answered.clone());
        runtime.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let mut stream = client.connect().await?;
                for _ in 0..REQUESTS_PER_CONNECTION {
                    client.request(&mut stream).await?;
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
            anyhow::Ok(())
        })
    };
    let clients: Vec<_> = (0..CLIENTS).map(|_| load(client.clone())).collect();
    let shown = || runtime.block_on(async { presented(&client.connect().await?) });
    // A connection from before the change continues.
    let mut old = runtime.block_on(client.connect())?;
    install(folder.path(), "second")?;
    let second = until("the second certificate", || {
        let shown = shown()?;
        Ok((shown != first).then_some(shown))
    })?;
    runtime.block_on(client.request(&mut old))?;
    // A broken file changes nothing.
    std::fs::write(folder.path().join("cert"), "not a certificate")?;
    std::thread::sleep(Duration::from_secs(3));
    ensure!(shown()? == second, "a broken certificate replaced a good one");
    install(folder.path(), "first")?;
    until("the first certificate again", || Ok((shown()? == first).then_some(())))?;
    // The command line trusts the certificate that it is given, and no other.
    let list = |ca: &str| {
        let ca = certificate(ca).to_string_lossy().into_owned();
        let mut command = host.command()?;
        Ok::<_, anyhow::Error>(command.args(["--tls-ca", &ca, "key", "list"]).output()?)
    };
    let listed = list("first.cert")?;
    ensure!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    ensure!(list("second.cert")?.status.code() == Some(3), "an untrusted host was answered");
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        runtime
            .block_on(client)
            .map_err(|error| anyhow!(error))?
            .context("a request was dropped")?;
    }
    let answered = answered.load(Ordering::Relaxed);
    println!("{answered} requests were answered");
    ensure!(answered > 50, "the load was too small: {answered}");
    Ok(())
}

#[test]
fn an_unusable_certificate_is_refused() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").to_string_lossy().into_owned();
    let path = |name: &str| certificate(name).to_string_lossy().into_owned();
    let refused = |cert: &str, key: &str| {
        failing_start(&["--data", &data, "--tls-cert", cert, "--tls-key", key])
    };
    let (cert, key) = (path("first.cert"), path("first.key"));
    for (cert, key, message) in [
        (cert.as_str(), path("second.key").as_str(), "cannot be used together"),
        (key.as_str(), key.as_str(), "has no certificate"),
        (cert.as_str(), cert.as_str(), "has no private key"),
        ("/nonexistent", key.as_str(), "cannot read /nonexistent"),
    ] {
        let found = refused(cert, key)?;
        ensure!(found.contains(message), "{found}");
    }
    Ok(())
}
