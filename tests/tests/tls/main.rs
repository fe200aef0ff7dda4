//! TLS of the API: a client that trusts the certificate is served, by HTTP/1.1 or HTTP/2, and a
//! certificate that changes under load drops no request.

mod client;
mod http2;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use exosphere_tests::{Host, binary, failing_start, until};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use client::{Client, HTTP_1, certificate, install, start};

/// Requests of a client on one connection.
const REQUESTS_PER_CONNECTION: usize = 5;

/// Number of clients under load.
const CLIENTS: usize = 6;

/// Returns the certificate of the host's end of a connection.
fn presented(stream: &TlsStream<TcpStream>) -> Result<Vec<u8>> {
    let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(chain.first().context("an empty chain")?.to_vec())
}

#[test]
fn a_changed_certificate_drops_no_request() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = start(folder.path(), &[])?;
    let client = Client::new(&host, HTTP_1)?;
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
    let untrusted = list("second.cert")?;
    ensure!(untrusted.status.code() == Some(3), "an untrusted host was answered");
    let remedy = String::from_utf8_lossy(&untrusted.stderr).into_owned();
    ensure!(remedy.contains("--tls-ca") && !remedy.contains("exosphere serve"), "{remedy}");
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

#[test]
fn a_client_names_the_scheme_that_is_meant() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (secure, plain) = (start(folder.path(), &[])?, Host::start()?);
    let swapped = |url: &str| match url.strip_prefix("https://") {
        Some(rest) => format!("http://{rest}"),
        None => url.replace("http://", "https://"),
    };
    for host in [&secure, &plain] {
        for words in [&["run", "list"][..], &["graph", "show", "g"]] {
            let mut command = Command::new(binary()?);
            command.env("EXOSPHERE_KEY", host.key()).args(["--host", &swapped(host.url())]);
            let output = command.args(words).output()?;
            let found = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(output.status.code() == Some(3), "{output:?}");
            ensure!(found.contains(&format!("--host {}", host.url())), "{found}");
        }
    }
    Ok(())
}
