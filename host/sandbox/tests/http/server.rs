//! A loopback server whose answer depends on the path of the request. Records
//! the requests, and counts open connections.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;

/// The root certificate that signed the certificate of `localhost` here. It is valid
/// until the year 2120. The server's key is beside it and is not secret: no other
/// host trusts this root.
pub const ROOT_CERTIFICATE: &[u8] = include_bytes!("root.der");

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<String>>,
    open: AtomicUsize,
    connections: AtomicUsize,
}

pub struct Server {
    pub port: u16,
    seen: Arc<Seen>,
}

impl Server {
    pub async fn start() -> Server {
        Server::with(None).await
    }

    pub async fn with_tls() -> Server {
        let key = PrivatePkcs8KeyDer::from(include_bytes!("server.key.der").to_vec());
        let chain = vec![CertificateDer::from(include_bytes!("server.der").to_vec())];
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from(key))
            .unwrap();
        Server::with(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn with(tls: Option<TlsAcceptor>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Seen::default());
        let shared = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    seen.connections.fetch_add(1, SeqCst);
                    seen.open.fetch_add(1, SeqCst);
                    // An error means that the guest has closed the connection.
                    let _ = match tls {
                        None => serve(stream, &seen).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, &seen).await,
                            Err(error) => Err(error),
                        },
                    };
                    seen.open.fetch_sub(1, SeqCst);
                });
            }
        });
        Server { port, seen }
    }

    /// Returns the requests, each with all its bytes, in order.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Returns the number of connections so far.
    pub fn connections(&self) -> usize {
        self.seen.connections.load(SeqCst)
    }

    /// Waits until a connection is open.
    pub async fn wait_until_connected(&self) {
        for _ in 0..500 {
            if !self.requests().is_empty() {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("no client connected");
    }

    /// Waits until the other side has closed every connection.
    pub async fn wait_until_closed(&self) {
        for _ in 0..300 {
            if self.seen.open.load(SeqCst) == 0 {
                return;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("a connection stays open");
    }
}

async fn serve(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    seen: &Seen,
) -> std::io::Result<()> {
    let request = receive(&mut stream).await?;
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.requests.lock().unwrap().push(request.clone());
    respond(&mut stream, &path, &request).await?;
    // No client sends a second request; this waits for the close.
    let mut rest = [0; 1024];
    while stream.read(&mut rest).await? > 0 {}
    Ok(())
}

/// Reads one request: its head, and its body with either framing.
async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.to_lowercase().split("content-length: ").nth(1).map(|rest| {
                rest.lines().next().unwrap_or_default().trim().parse::<usize>().unwrap()
            });
            let is_whole = match length {
                Some(length) => body.len() >= length,
                None if head.contains("chunked") => body.ends_with("0\r\n\r\n"),
                None => true,
            };
            if is_whole || head.contains(" /early ") || head.contains(" /refuse ") {
                return Ok(text);
            }
        }
        let mut piece = [0; 64 * 1024];
        match stream.read(&mut piece).await? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&piece[..read]),
        }
    }
}

async fn respond(
    stream: &mut (impl AsyncWrite + Unpin),
    path: &str,
    request: &str,
) -> std::io::Result<()> {
    let ok =
        |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let text = match path.split('?').next().unwrap_or_default() {
        "/echo" => ok(request.split_once("\r\n\r\n").unwrap().1),
        "/redirect" => {
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/inside\r\nContent-Length: 0\r\n\r\n"
                .into()
        }
        "/headers" => {
            "HTTP/1.1 200 OK\r\nConnection: close\r\nX-A: b\r\nContent-Length: 0\r\n\r\n".into()
        }
        "/upgrade" => {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n".into()
        }
        "/huge-head" => format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(200_000)),
        "/refuse" => "HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\n\r\ntoo large".into(),
        "/half" => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc".into(),
        "/nonsense" => "SSH-2.0-nonsense\r\n\r\n".into(),
        "/silent" => return Ok(()),
        "/drip" => return drip(stream).await,
        "/endless" => return endless(stream).await,
        _ => ok("hello"),
    };
    stream.write_all(text.as_bytes()).await?;
    if path == "/refuse" {
        // Neither reads the rest of the request nor closes.
        std::future::pending::<()>().await;
    }
    if matches!(path, "/half" | "/nonsense") {
        stream.shutdown().await?;
    }
    Ok(())
}

async fn drip(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n").await?;
    loop {
        stream.write_all(b"x").await?;
        stream.flush().await?;
        sleep(Duration::from_millis(50)).await;
    }
}

async fn endless(stream: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    stream.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    loop {
        stream.write_all(chunk.as_bytes()).await?;
    }
}
