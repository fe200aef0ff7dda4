//! HTTP/2: several requests on one connection, within the limits that hold for all connections, and
//! clients that open, cancel or stall more than they may.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::honest_traffic::slack;
use exosphere_tests::process_stats::ProcessStats;
use h2::client::SendRequest;
use http::{Request, Response};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use crate::client::{BOTH, Client, HTTP_1, start};

/// The number of requests at a time on one connection, as the host announces it.
const MAX_STREAMS: usize = 16;

/// The growth of the host's memory that hostile connections may cause, in KiB.
const MAX_GROWTH_KB: i64 = 64 * 1024;

fn runtime() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

type Sender = SendRequest<bytes::Bytes>;

/// A connection, and the task that drives it until it closes.
async fn connect(client: &Client, window: u32) -> Result<(Sender, JoinHandle<()>)> {
    let stream = client.connect().await?;
    ensure!(stream.get_ref().1.alpn_protocol() == Some(&b"h2"[..]), "HTTP/2 was not chosen");
    let mut builder = h2::client::Builder::new();
    let (sender, connection) = builder.initial_window_size(window).handshake(stream).await?;
    let driver = tokio::spawn(async move { drop(connection.await) });
    Ok((sender.ready().await?, driver))
}

fn request(client: &Client, method: &str, path: &str) -> Result<Request<()>> {
    let request = Request::builder().method(method).version(http::Version::HTTP_2);
    let request = request.uri(format!("https://{}{path}", client.address));
    Ok(request.header("authorization", &client.authorization).body(())?)
}

/// Reads an answer: its status and its body.
async fn read(answer: Response<h2::RecvStream>) -> Result<(u16, Vec<u8>)> {
    let (head, mut body) = answer.into_parts();
    let mut bytes = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        bytes.extend_from_slice(&data);
    }
    Ok((head.status.as_u16(), bytes))
}

/// Sends a request with a body, and reads the answer.
async fn call(sender: &Sender, request: Request<()>, body: Vec<u8>) -> Result<(u16, Vec<u8>)> {
    let mut sender = sender.clone().ready().await?;
    let (answer, mut stream) = sender.send_request(request, body.is_empty())?;
    if !body.is_empty() {
        stream.send_data(body.into(), true)?;
    }
    read(answer.await?).await
}

#[test]
fn requests_share_a_connection() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = start(folder.path(), &[])?;
    let client = Client::new(&host, BOTH)?;
    runtime()?.block_on(async {
        let (sender, driver) = connect(&client, 1 << 20).await?;
        let runs = "/v1/namespaces/default/runs";
        call(&sender, request(&client, "GET", runs)?, Vec::new()).await?;
        ensure!(sender.current_max_send_streams() == MAX_STREAMS, "other limits are announced");
        let mut calls = Vec::new();
        for _ in 0..100 {
            let (sender, request) = (sender.clone(), request(&client, "GET", runs)?);
            calls.push(tokio::spawn(async move { call(&sender, request, Vec::new()).await }));
        }
        for done in calls {
            let (status, body) = done.await??;
            ensure!(status == 200, "{}", String::from_utf8_lossy(&body));
        }
        // A long answer arrives whole, and a body too large is refused without harm to the others.
        let (status, document) =
            call(&sender, request(&client, "GET", "/v1/openapi.json")?, Vec::new()).await?;
        ensure!(status == 200 && serde_json::from_slice::<Value>(&document)?.is_object());
        let pause = request(&client, "POST", "/v1/operator/namespaces/default/pause")?;
        let (status, refused) = call(&sender, pause, vec![b' '; 200 * 1024]).await?;
        ensure!(status == 413, "{}", String::from_utf8_lossy(&refused));
        let (status, _) = call(&sender, request(&client, "GET", runs)?, Vec::new()).await?;
        ensure!(status == 200);
        // The rules of hosts hold for the pseudo-header, too.
        let mut other = request(&client, "GET", runs)?;
        *other.uri_mut() = format!("https://evil.example{runs}").parse()?;
        let (status, refused) = call(&sender, other, Vec::new()).await?;
        ensure!(status == 403, "{}", String::from_utf8_lossy(&refused));
        let mut two = request(&client, "GET", runs)?;
        two.headers_mut().insert("host", "evil.example".parse()?);
        let (status, refused) = call(&sender, two, Vec::new()).await?;
        ensure!(status == 400, "{}", String::from_utf8_lossy(&refused));
        drop(sender);
        driver.await?;
        anyhow::Ok(())
    })
}

#[test]
fn a_connection_without_requests_is_closed() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = start(folder.path(), &["--header-seconds", "2", "--idle-seconds", "3"])?;
    let client = Client::new(&host, BOTH)?;
    let within = Duration::from_secs_f64(5.0 * slack());
    runtime()?.block_on(async {
        let (unused, driver) = connect(&client, 65_535).await?;
        timeout(within, driver).await.context("no request came")??;
        let (sender, driver) = connect(&client, 65_535).await?;
        call(&sender, request(&client, "GET", "/health")?, Vec::new()).await?;
        timeout(within, driver).await.context("it is idle")??;
        drop((unused, sender));
        anyhow::Ok(())
    })
}

/// A client that gives a stream no room to send holds its answer for ten seconds at most.
#[test]
fn an_unread_answer_closes_its_connection() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = start(folder.path(), &[])?;
    let client = Client::new(&host, BOTH)?;
    runtime()?.block_on(async {
        let (mut sender, driver) = connect(&client, 0).await?;
        let started = Instant::now();
        let mut unread = Vec::new();
        for _ in 0..MAX_STREAMS {
            let request = request(&client, "GET", "/v1/openapi.json")?;
            unread.push(sender.send_request(request, true)?.0.await?);
            sender = sender.ready().await?;
        }
        let within = Duration::from_secs_f64(15.0 * slack());
        timeout(within, driver).await.context("the connection is still open")??;
        ensure!(started.elapsed() > Duration::from_secs(8), "{:?}", started.elapsed());
        anyhow::Ok(())
    })
}

#[test]
fn a_stop_waits_for_requests() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut host = start(folder.path(), &[])?;
    let client = Client::new(&host, BOTH)?;
    let runtime = runtime()?;
    let (idle, idle_driver) = runtime.block_on(connect(&client, 65_535))?;
    let started = Instant::now();
    host.terminate()?;
    ensure!(host.wait()?.success());
    ensure!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    runtime.block_on(idle_driver)?;
    drop(idle);
    Ok(())
}

/// The header of a frame.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The headers of `GET /health`, without Huffman codes or references to earlier ones.
fn health_headers() -> Vec<u8> {
    // GET, https, and literals for path (4) and authority (1).
    let mut block = vec![0x82, 0x87, 0x04, 7];
    block.extend(b"/health");
    block.extend([0x01, 9]);
    block.extend(b"localhost");
    block
}

const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// Returns the frames that a hostile client sends in its step.
fn hostile(kind: &str, step: u32) -> Vec<u8> {
    let stream = 2 * step + 1;
    let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &health_headers());
    match kind {
        "streams" => frame(HEADERS, END_HEADERS, stream, &health_headers()),
        "resets" => [open, frame(RESET, 0, stream, &8u32.to_be_bytes())].concat(),
        "pings" => frame(PING, 0, 0, &[7; 8]),
        "settings" => frame(SETTINGS, 0, 0, &[]),
        "headers" if step == 0 => frame(HEADERS, END_STREAM, 1, &health_headers()),
        "headers" => {
            let name = [&[0x00, 5][..], b"x-abc", &[100], &[b'v'; 100]].concat();
            frame(CONTINUATION, 0, 1, &name.repeat(100))
        }
        other => unreachable!("{other}"),
    }
}

/// Sends hostile frames until the host closes the connection, or all are sent, and reads nothing of
/// the answers beyond what the socket takes.
async fn flood(mut stream: TlsStream<TcpStream>, kind: &str, steps: u32) -> Result<()> {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
    stream.write_all(&frame(SETTINGS, 0, 0, &[])).await?;
    for step in 0..steps {
        let frames = hostile(kind, step);
        let sent = timeout(Duration::from_secs(20), stream.write_all(&frames)).await;
        // The host has closed the connection, or reads no more until the client does.
        if !matches!(sent, Ok(Ok(()))) {
            break;
        }
    }
    let mut rest = [0; 4096];
    let drained = async { while stream.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    let _ = timeout(Duration::from_secs(1), drained).await;
    Ok(())
}

/// Answers an honest client of each protocol within a moment.
async fn ensure_serves(host: &Host) -> Result<()> {
    let within = Duration::from_secs_f64(2.0 * slack());
    let old = Client::new(host, HTTP_1)?;
    let mut stream = old.connect().await?;
    timeout(within, old.request(&mut stream)).await.context("HTTP/1.1 waits")??;
    let client = Client::new(host, BOTH)?;
    let (sender, _driver) = connect(&client, 65_535).await?;
    let health = request(&client, "GET", "/health")?;
    let (status, _) =
        timeout(within, call(&sender, health, Vec::new())).await.context("waits")??;
    ensure!(status == 200);
    Ok(())
}

#[test]
fn hostile_streams_do_not_harm_the_host() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = start(folder.path(), &[])?;
    let client = Client::new(&host, BOTH)?;
    let runtime = runtime()?;
    runtime.block_on(ensure_serves(&host))?;
    let before = ProcessStats(host.pid()).memory_kb("VmRSS")?;
    for kind in ["streams", "resets", "pings", "settings", "headers"] {
        let floods: Vec<_> = (0..8)
            .map(|_| {
                let client = client.clone();
                runtime.spawn(async move { flood(client.connect().await?, kind, 20_000).await })
            })
            .collect();
        runtime.block_on(ensure_serves(&host)).context(kind)?;
        for one in floods {
            runtime.block_on(one)?.context(kind)?;
        }
        runtime.block_on(ensure_serves(&host)).context(kind)?;
        let after = ProcessStats(host.pid()).memory_kb("VmRSS")?;
        ensure!(after < before + MAX_GROWTH_KB, "{kind}: {before} KiB, then {after}");
    }
    Ok(())
}
