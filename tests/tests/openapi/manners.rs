//! The manners of every answer: request ids, `HEAD`, `Allow`, compression, keys of idempotency.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use exosphere_tests::{Host, until};
use serde_json::{Value, json};

use crate::document::Document;
use crate::happy::{World, requests};
use crate::sent::Sent;

#[test]
fn every_read_takes_head() -> Result<()> {
    let host = Host::start()?;
    let (document, world) = (Document::of(&host)?, World::of(&host)?);
    for operation in document.operations()?.into_iter().filter(|it| it.method == "GET") {
        for (status, sent) in requests(&operation.id, &world)? {
            let head = Sent { method: "HEAD".to_owned(), ..sent }.answer(&host)?;
            ensure!(head.status == status && head.text.is_empty(), "{}: {head:?}", operation.id);
        }
    }
    Ok(())
}

#[test]
fn other_methods_are_answered_with_allow() -> Result<()> {
    let host = Host::start()?;
    let mut methods = BTreeMap::<String, Vec<String>>::new();
    for operation in Document::of(&host)?.operations()? {
        methods.entry(operation.path).or_default().push(operation.method);
    }
    for (template, methods) in methods {
        let run = "00000000-0000-7000-8000-000000000000";
        let path = template.replace("{run}", run).replace("{state}", "1").replace(['{', '}'], "");
        let response = Sent::new("TRACE", &path).to(&host)?;
        ensure!(response.status() == 405, "{path}: {}", response.status());
        let allow = response.headers().get("allow").context("no Allow")?.to_str()?.to_owned();
        let allowed: Vec<_> = allow.split(',').map(str::trim).collect();
        for method in methods {
            ensure!(allowed.contains(&method.as_str()), "{path}: {method} is not in {allow}");
        }
    }
    Ok(())
}

#[test]
fn every_answer_has_a_request_id() -> Result<()> {
    let host = Host::start()?;
    let id_of = |path: &str, given: Option<&str>| -> Result<String> {
        let sent = Sent::new("GET", path);
        let sent = given.into_iter().fold(sent, |sent, id| sent.header("x-request-id", id));
        let response = sent.to(&host)?;
        let id = response.headers().get("x-request-id").context("no id")?;
        Ok(id.to_str()?.to_owned())
    };
    for path in ["/health", "/nowhere", "/v1/namespaces/%64efault/runs", "/v1/namespaces/a/runs"] {
        ensure!(id_of(path, Some("abc-1.2:3_4"))? == "abc-1.2:3_4", "{path}");
        let made = id_of(path, None)?;
        ensure!(made.len() == 32 && made != id_of(path, None)?, "{path}: {made}");
        ensure!(id_of(path, Some("not an id"))?.len() == 32, "{path}");
    }
    Ok(())
}

#[test]
fn internal_errors_name_their_request() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let host = Host::start_with(folder.path(), &[], |command| {
        if let Ok(file) = File::create(&log) {
            command.stderr(file);
        }
    })?;
    host.push("text")?;
    let database = rusqlite::Connection::open(folder.path().join("exosphere.db"))?;
    database.busy_timeout(Duration::from_secs(10))?;
    database.execute("UPDATE component SET nodes = '{'", [])?;
    let sent = Sent::new("GET", "/v1/namespaces/default/plugins/text");
    let answer = sent.header("x-request-id", "find-me").answer(&host)?;
    let found: Value = answer.json()?;
    ensure!(answer.status == 500 && found["request_id"] == "find-me", "{found:#}");
    until("the line of the log", || {
        let text = std::fs::read_to_string(&log)?;
        let line = text.lines().find(|line| line.contains("internal error"));
        Ok(line.filter(|line| line.contains("find-me")).map(str::to_owned))
    })?;
    Ok(())
}

#[test]
fn long_answers_are_compressed_on_request() -> Result<()> {
    let host = Host::start()?;
    let get = |path: &str, accept: &'static str| {
        Sent::new("GET", path).header("accept-encoding", accept).to(&host)
    };
    let plain = get("/v1/openapi.json", "identity")?;
    ensure!(plain.headers().get("content-encoding").is_none());
    let plain = plain.bytes()?;
    let packed = get("/v1/openapi.json", "br, gzip;q=0.8")?;
    ensure!(packed.headers()["content-encoding"] == "gzip");
    let packed = packed.bytes()?;
    ensure!(packed.starts_with(&[0x1f, 0x8b]) && packed.len() * 4 < plain.len());
    ensure!(get("/health", "gzip")?.headers().get("content-encoding").is_none(), "it is short");
    Ok(())
}

#[test]
fn a_key_in_the_header_starts_once() -> Result<()> {
    let host = Host::start()?;
    World::of(&host)?;
    let start = |key: &str, body: &Value| {
        let sent = Sent::new("POST", "/v1/namespaces/default/graphs/echo/runs");
        sent.header("idempotency-key", key).json(body).answer(&host)
    };
    let first = start("k", &json!({}))?;
    ensure!(first.status == 201, "{first:?}");
    let repeated = start("k", &json!({"idempotency_key": "k"}))?;
    ensure!(repeated.status == 200, "{repeated:?}");
    ensure!(repeated.json()?["run"] == first.json()?["run"], "the same key in header and body");
    let other = start("k", &json!({"inputs": {"value": 2}}))?;
    ensure!(other.json()?["type"] == "/problems/key-reused", "{other:?}");
    let unclear = start("k", &json!({"idempotency_key": "l"}))?;
    ensure!(unclear.json()?["errors"][0]["path"] == "$.idempotency_key", "{unclear:?}");
    Ok(())
}
