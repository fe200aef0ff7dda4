//! Admission of uploads: concurrency, timeouts, limits, and the answer to each upload.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use exosphere_tests::{Host, checkout, component, good, problem, until};
use serde_json::{Value, json};

/// Begins an upload that stalls. Returns when the host has admitted it and asks for the body.
fn stuck(host: &Host, namespace: &str) -> Result<TcpStream> {
    let address = host.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(&address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let head = format!(
        "POST /v1/namespaces/{namespace}/plugins?name=stuck HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/wasm\r\nContent-Length: 1000\r\n\
         Authorization: {}\r\nExpect: 100-continue\r\n\r\n",
        host.authorization()
    );
    stream.write_all(head.as_bytes())?;
    let mut answer = [0; 25];
    stream.read_exact(&mut answer)?;
    ensure!(answer == *b"HTTP/1.1 100 Continue\r\n\r\n", "{}", answer.escape_ascii());
    stream.write_all(b"\0asm")?;
    Ok(stream)
}

/// Sends an invalid upload, which is rejected as soon as it is read. Stalled uploads keep their
/// permits for seconds only.
fn upload(host: &Host, namespace: &str) -> Result<reqwest::blocking::Response> {
    let path = format!("//v1/namespaces/{namespace}/plugins?name=text");
    Ok(host.request("POST", &path)?.body("rubbish").send()?)
}

fn is_read(response: &reqwest::blocking::Response) -> bool {
    response.status() == 422
}

fn minimal() -> Result<String> {
    Ok(std::fs::read_to_string(checkout().join("tests/fixtures/minimal.wat"))?)
}

#[test]
fn excess_and_slow_uploads_are_rejected() -> Result<()> {
    let host = Host::start()?;
    let started = Instant::now();
    let mut first: Vec<TcpStream> = (0..4).map(|_| stuck(&host, "one")).collect::<Result<_>>()?;
    let refused = upload(&host, "one")?;
    ensure!(refused.status() == 429, "{}", refused.status());
    ensure!(refused.headers()["retry-after"] == "5");
    let (_, found) = problem(refused)?;
    ensure!(found["type"] == "/problems/too-many-uploads", "{found:#}");
    ensure!(is_read(&upload(&host, "two")?), "another namespace has its own permits");
    let second: Vec<TcpStream> = (0..4).map(|_| stuck(&host, "two")).collect::<Result<_>>()?;
    ensure!(upload(&host, "three")?.status() == 429, "all permits of the host are taken");
    ensure!(host.get("//health")?["status"] == "ok", "/health is not affected");
    // A client that hangs up returns its permit.
    drop(second);
    until("places are free again", || Ok(is_read(&upload(&host, "three")?).then_some(())))?;
    // A client that sends nothing is disconnected.
    let mut answer = [0; 512];
    let stream = first.first_mut().unwrap();
    let read = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    ensure!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    ensure!(started.elapsed() >= Duration::from_secs(10), "the upload was disconnected too early");
    until("its place is free again", || Ok(is_read(&upload(&host, "one")?).then_some(())))
}

#[test]
fn check_matches_push_and_stores_nothing() -> Result<()> {
    let host = Host::start()?;
    let request = host.request("POST", "/plugins/check?name=lab")?;
    let checked = good(request.body(component("lab")?).send()?)?;
    ensure!(host.get("/plugins")?["plugins"] == json!([]));
    ensure!(std::fs::read_dir(host.data().join("code"))?.count() == 0, "no code is kept");
    let pushed = host.push("lab")?;
    for field in ["name", "digest", "size", "nodes", "imports", "warnings", "capabilities"] {
        ensure!(checked[field] == pushed[field], "{field}: {checked:#} {pushed:#}");
    }
    ensure!(checked["uploaded_at"].is_null() && pushed["compile_ms"].as_i64() > Some(0));
    // The word `check` stays free as the name of a plugin.
    good(host.request("POST", "/plugins?name=check")?.body(component("text")?).send()?)?;
    ensure!(host.get("/plugins/check")?["name"] == "check");
    let (status, _) = host.refused("POST", "/plugins/other", &json!({}))?;
    ensure!(status == 405);
    Ok(())
}

#[test]
fn unusual_plugins_get_warnings() -> Result<()> {
    let host = Host::start()?;
    let text = minimal()?;
    // Added inside the component, before its end.
    let end = text.trim_end().strip_suffix(')').unwrap();
    let unusual = format!(
        "{end} (@custom \"name\" \"{}\") (component $c) (instance $extra (instantiate $c))
         (export \"extra\" (instance $extra)))",
        "x".repeat(100_000)
    );
    let pushed = good(host.upload("odd", wat::parse_str(unusual)?)?)?;
    let warnings = pushed["warnings"].as_array().unwrap();
    for message in ["strip", "`extra`"] {
        let is_reported =
            warnings.iter().any(|warning| warning.as_str().unwrap().contains(message));
        ensure!(is_reported, "{message}: {pushed:#}");
    }
    ensure!(pushed["capabilities"] == json!([]));
    Ok(())
}

fn refusal(host: &Host, bytes: Vec<u8>) -> Result<Value> {
    let (status, found) = problem(host.upload("bad", bytes)?)?;
    ensure!(status == 422, "{found:#}");
    ensure!(found["type"] == "/problems/plugin-refused", "{found:#}");
    Ok(found)
}

#[test]
fn each_rejection_has_a_reason_code() -> Result<()> {
    let host = Host::start()?;
    for (reason, bytes) in [
        ("empty", vec![]),
        ("not-a-component", b"(module)".to_vec()),
        ("invalid-component", b"\0asm\x0d\0\x01\0\xff".to_vec()),
        ("not-a-plugin", wat::parse_str("(component)")?),
        ("disabled-proposal", wat::parse_str("(component (core module (memory i64 1)))")?),
        (
            "too-many-parts",
            wat::parse_str(format!("(component (core module {}))", "(memory 1)".repeat(50)))?,
        ),
        ("bad-description", {
            let text = minimal()?;
            let changed = text.replace(r#"\"minimal\""#, r#"\"mini al\""#);
            ensure!(changed != text);
            wat::parse_str(changed)?
        }),
    ] {
        let found = refusal(&host, bytes)?;
        ensure!(found["reason"] == reason, "{reason}: {found:#}");
    }
    ensure!(std::fs::read_dir(host.data().join("code"))?.count() == 0, "no code is kept");
    Ok(())
}

#[test]
fn operator_limits_are_enforced_and_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let flags = ["--upload-bytes", "1000000", "--compile-cpu-seconds", "1"];
    let host = Host::start_with(folder.path(), &flags, |_| ())?;
    let (status, found) = problem(host.upload("large", vec![0; 1_000_001])?)?;
    ensure!(status == 413, "{found:#}");
    ensure!(found["detail"].as_str().unwrap().contains("--upload-bytes"), "{found:#}");
    // The component is within every bound, and takes more than a second of CPU time to compile.
    let slow = format!("(func {})", "(drop (memory.grow (i32.const 0)))".repeat(24_000));
    let slow = format!("(component (core module (memory 1) {}))", slow.repeat(6));
    let found = refusal(&host, wat::parse_str(slow)?)?;
    ensure!(found["reason"] == "compile-cpu-limit", "{found:#}");
    ensure!(found["detail"].as_str().unwrap().contains("--compile-cpu-seconds"), "{found:#}");
    host.push("text")?;
    Ok(())
}
