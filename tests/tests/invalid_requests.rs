//! Invalid requests at every endpoint: each gets a 4xx that reports all problems, and changes
//! nothing.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::TcpStream;

use anyhow::{Context, Result, ensure};
use exosphere_tests::{Host, checkout, component, good, problem};
use serde_json::{Value, json};

/// A component of a WIT world other than that of plugins.
const OTHER_WORLD: &str = r#"(component
    (import "elsewhere:things/door" (instance (export "open" (func)))))"#;

#[test]
fn non_plugin_uploads_are_rejected() -> Result<()> {
    let host = Host::start()?;
    let lab = component("lab")?;
    let truncated = lab[..lab.len() / 2].to_vec();
    let core = wat::parse_str("(module)")?;
    let no_exports = wat::parse_str("(component)")?;
    let cases: [(&str, Vec<u8>, &str); 8] = [
        ("empty", Vec::new(), "empty"),
        ("text", b"hello, this is no WebAssembly at all".to_vec(), "component"),
        ("elf", std::fs::read(exosphere_tests::binary()?)?[..4096].to_vec(), "component"),
        ("wat", OTHER_WORLD.as_bytes().to_vec(), "component"),
        ("core", core, "core module"),
        ("truncated", truncated, ""),
        ("other-world", wat::parse_str(OTHER_WORLD)?, "elsewhere:things/door"),
        ("no-exports", no_exports, "exosphere:node/guest"),
    ];
    for (name, bytes, message) in cases {
        let (status, found) = problem(host.upload(name, bytes)?).context(name)?;
        let detail = found["detail"].as_str().unwrap();
        ensure!(status == 422 && detail.contains(message), "{name}: {found:#}");
    }
    let refused = host.upload("a name", lab.clone())?;
    ensure!(refused.headers()["connection"] == "close", "the rest of it may be unread");
    let (status, _) = problem(refused)?;
    ensure!(status == 400);
    ensure!(host.get("/plugins")?["plugins"] == json!([]), "nothing was stored");
    let first = host.upload("lab", lab.clone())?;
    ensure!(first.status() == 201);
    let repeated = host.upload("lab", lab)?;
    ensure!(repeated.status() == 200, "the same bytes again are no new plugin");
    Ok(())
}

#[test]
fn flipped_bits_do_not_harm_the_host() -> Result<()> {
    let host = Host::start()?;
    let tally = component("tally")?;
    for step in 0..12 {
        let mut bytes = tally.clone();
        let at = (step * 7919 + 11) % bytes.len();
        bytes[at] ^= 1 << (step % 8);
        let status = host.upload(&format!("flip{step}"), bytes)?.status();
        ensure!(status.is_success() || status == 422, "byte {at}: {status}");
    }
    good(host.upload("tally", tally)?)?;
    Ok(())
}

#[test]
fn a_graph_reports_all_its_problems() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let graph = json!({
        "nodes": [
            {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 2}, "next_nodes": ["worker", "nowhere"]},
            {"node_name": "ecko", "identifier": "worker", "inputs": {"value": 1}, "next_nodes": ["merger"]},
            {"node_name": "collect", "identifier": "merger", "inputs": {}, "next_nodes": [],
             "unites": {"identifier": "spliter"}},
            {"node_name": "echo", "identifier": "store", "inputs": {"value": 1}, "next_nodes": []},
        ],
        "retry_polcy": {},
        "retry_policy": {"strategy": "EXPONENTAL"},
    });
    let (status, found) = host.refused("PUT", "/graphs/bad", &graph)?;
    ensure!(status == 422, "{found:#}");
    let errors = found["errors"].as_array().unwrap();
    for (path, message) in [
        ("$.nodes[0].next_nodes[1]", "nowhere"),
        ("$.nodes[1].node_name", "echo"),
        ("$.nodes[2].unites.identifier", "splitter"),
        ("$.nodes[3].identifier", "reserved"),
        ("$.retry_polcy", "retry_policy"),
        ("$.retry_policy.strategy", "EXPONENTIAL"),
    ] {
        let is_reported = errors.iter().any(|error| {
            error["path"] == path && error["message"].as_str().unwrap().contains(message)
        });
        ensure!(is_reported, "{path} is not reported with {message:?}: {found:#}");
    }
    let (status, same) = host.refused("POST", "/graphs/bad/validate", &graph)?;
    ensure!(status == 422 && same["errors"] == found["errors"]);
    ensure!(host.get("/graphs")?["graphs"] == json!([]), "nothing was stored");
    Ok(())
}

#[test]
fn missing_resources_are_404() -> Result<()> {
    let host = Host::start()?;
    let run = "00000000-0000-7000-8000-000000000000";
    for (method, path) in [
        ("GET", format!("/runs/{run}")),
        ("GET", format!("/runs/{run}?after=1")),
        ("GET", format!("/runs/{run}/states")),
        ("GET", format!("/runs/{run}/states/1")),
        ("POST", format!("/runs/{run}/states/1/retry")),
        ("POST", format!("/runs/{run}/cancel")),
        ("POST", "/graphs/none/runs".to_owned()),
        ("GET", "/graphs/none".to_owned()),
        ("GET", "/plugins/none".to_owned()),
        ("GET", "/nothing".to_owned()),
    ] {
        let (status, found) = host.refused(method, &path, &json!({}))?;
        ensure!(status == 404, "{method} {path}: {found:#}");
    }
    for (method, path) in [
        ("GET", "/runs/not-an-id"),
        ("GET", "/runs?status=SLEEPING"),
        ("GET", "/runs?limit=many"),
        ("GET", "//v1/namespaces/a%20b/runs"),
        ("GET", "//v1/namespaces/%ff/runs"),
        ("GET", "//v1/namespaces/%64efault/runs"),
        ("GET", "//v1/%6eamespaces/default/runs"),
        ("GET", "//%761/operator/namespaces"),
        ("GET", "//v1/%6fperator/namespaces"),
        ("GET", "//v1/operator/%6eamespaces"),
        ("GET", "//v1/operator/namespaces/%64efault"),
        ("PUT", "//v1/operator/namespaces/%64efault/grants/lab"),
    ] {
        let (status, found) = host.refused(method, path, &json!({}))?;
        ensure!(status == 400, "{method} {path}: {found:#}");
    }
    let (status, _) = host.refused("DELETE", "/runs", &json!({}))?;
    ensure!(status == 405);
    Ok(())
}

/// Every query is read in one place: a parameter is known, valid and given once.
#[test]
fn queries_are_read_strictly() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let graph = json!({"nodes": [{"node_name": "whoami", "identifier": "me", "inputs": {}, "next_nodes": []}]});
    host.apply("g", &graph)?;
    let run = host.run("g", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    let lists = [
        "/runs".to_owned(),
        "/graphs".to_owned(),
        "/plugins".to_owned(),
        "/secrets".to_owned(),
        "/bulk".to_owned(),
        "/graphs/g/revisions".to_owned(),
        format!("/runs/{run}/states"),
        format!("/runs/{run}/result"),
        format!("/runs/{run}/states/me/outputs"),
        "//v1/operator/namespaces".to_owned(),
        "//v1/operator/keys".to_owned(),
        "//v1/operator/audit".to_owned(),
        "//v1/operator/namespaces/default/grants".to_owned(),
    ];
    let ensure_refused = |method: &str, path: &str, parameter: &str| -> Result<()> {
        let (status, found) = host.refused(method, path, &json!({}))?;
        ensure!(status == 400 && found["type"] == "/problems/bad-query", "{path}: {found:#}");
        let errors = found["errors"].as_array().context("no errors")?;
        let is_named = |error: &Value| error["path"] == format!("query.{parameter}");
        ensure!(errors.len() == 1 && is_named(&errors[0]), "{path}: {found:#}");
        Ok(())
    };
    for list in &lists {
        host.get(&format!("{list}?limit=1000"))?;
        for limit in ["limit=0", "limit=1001", "limit=-1", "limit=x", "limit=", "limit=1&limit=1"] {
            ensure_refused("GET", &format!("{list}?{limit}"), "limit")?;
        }
        ensure_refused("GET", &format!("{list}?limt=1"), "limt")?;
        let (_, found) = host.refused("GET", &format!("{list}?limt=1"), &json!({}))?;
        ensure!(found.to_string().contains("did you mean \\\"limit\\\"?"), "{found:#}");
    }
    for (method, path, parameter) in [
        ("GET", "/graphs/g?x=1", "x"),
        ("GET", "//health?x=1", "x"),
        ("POST", &format!("/runs/{run}/cancel?force=true"), "force"),
        ("GET", "/graphs/g/diff?from=1&to=two", "to"),
        ("DELETE", "/graphs/g?with_runs=yes", "with_runs"),
        ("DELETE", "/graphs/g?with_runs=true&with_runs=true", "with_runs"),
        ("GET", &format!("/runs/{run}?after=1&after=2"), "after"),
    ] {
        ensure_refused(method, path, parameter)?;
    }
    let (status, found) = host.refused("GET", "/graphs/g/diff?from=1", &json!({}))?;
    ensure!(status == 400 && found["errors"][0]["path"] == "query", "{found:#}");
    Ok(())
}

/// A body is refused in the words of the API, with every problem and its path; never in those of
/// the reader.
#[test]
fn typed_bodies_report_all_problems() -> Result<()> {
    let host = Host::start()?;
    let keys = "//v1/operator/keys";
    for (method, path, body, expected) in [
        (
            "POST",
            keys,
            json!({"label": 7, "role": "admn", "namespaces": "all", "payload": true}),
            &["$.label", "$.role", "$.namespaces", "$.payload"][..],
        ),
        ("POST", keys, json!({"label": "a", "role": "viewer"}), &["$"]),
        (
            "POST",
            keys,
            json!({"label": "a", "role": "viewer", "namespaces": null}),
            &["$.namespaces"],
        ),
        (
            "POST",
            keys,
            json!({"label": "a", "role": "viewer", "namespaces": ["*", "a"]}),
            &["$.namespaces"],
        ),
        (
            "PUT",
            "//v1/operator/namespaces/default",
            json!({"limits": {"cpu_mss": 1}, "slots": "2", "slot": 1}),
            &["$.limits", "$.slots", "$.slot"],
        ),
        (
            "PUT",
            "//v1/operator/namespaces/default/quotas",
            json!({"quotas": {"graph": 1}}),
            &["$.quotas"],
        ),
        ("PUT", "//v1/operator/namespaces/default/grants/p", json!({"http": [1]}), &["$.http[0]"]),
        ("POST", "/graphs/g/pause", json!({"reason": 1}), &["$.reason"]),
        ("POST", "/graphs/g/rollback", json!({}), &["$"]),
    ] {
        let (status, found) = host.refused(method, path, &body)?;
        ensure!(status == 400 && found["type"] == "/problems/bad-json", "{path}: {found:#}");
        let errors = found["errors"].as_array().context("no errors")?;
        let mut paths: Vec<_> = errors.iter().filter_map(|error| error["path"].as_str()).collect();
        let mut expected = expected.to_vec();
        paths.sort();
        expected.sort();
        ensure!(paths == expected, "{path}: {found:#}");
        let text = found.to_string();
        for leak in ["line 1", "column", "invalid type", "expected", "missing field", "struct"] {
            ensure!(!text.contains(leak), "{leak}: {found:#}");
        }
    }
    let (_, found) = host.refused(
        "PUT",
        "//v1/operator/namespaces/default/quotas",
        &json!({"quotas": {"grpahs": 1}}),
    )?;
    ensure!(found.to_string().contains("did you mean"), "{found:#}");
    Ok(())
}

#[test]
fn a_precondition_needs_what_it_names() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let graph = json!({"nodes": [{"node_name": "whoami", "identifier": "me", "inputs": {}, "next_nodes": []}]});
    let with = |header: &str, path: &str, body: &Value| -> Result<u16> {
        let request = host.request("PUT", path)?.header(header, "*");
        Ok(request.json(body).send()?.status().as_u16())
    };
    let settings = "//v1/operator/namespaces/new";
    for (path, body) in [
        ("/graphs/new", &graph),
        (settings, &json!({"slots": 3})),
        (&format!("{settings}-a/quotas"), &json!({"quotas": {"graphs": 1}})),
        (&format!("{settings}-b/grants/p"), &json!({"config": {"k": "v"}})),
    ] {
        ensure!(host.refused("GET", path, &json!({}))?.0 == 404, "{path}");
        ensure!(with("if-match", path, body)? == 412, "{path}");
        ensure!(host.refused("GET", path, &json!({}))?.0 == 404, "{path}");
        ensure!(with("if-none-match", path, body)? == 200, "{path}");
        ensure!(with("if-none-match", path, body)? == 412, "{path}");
        ensure!(with("if-match", path, body)? == 200, "{path}");
    }
    // A removal makes nothing.
    let gone = "//v1/operator/namespaces/absent";
    ensure!(host.refused("DELETE", &format!("{gone}/grants/p"), &json!({}))?.0 == 404);
    ensure!(host.refused("GET", gone, &json!({}))?.0 == 404);
    Ok(())
}

#[test]
fn non_json_bodies_are_400() -> Result<()> {
    let host = Host::start()?;
    for body in ["", "{", "{\"inputs\": }", "[1,2", "nul", "{\"inputs\": {}} trailing", "\u{0}"] {
        for (method, path) in [("POST", "/graphs/g/runs"), ("PUT", "/graphs/g")] {
            let request = host.request(method, path)?.body(body.to_owned());
            let (status, found) = problem(request.send()?)?;
            ensure!(status == 400, "{method} {path} {body:?}: {found:#}");
        }
    }
    let deep = "[".repeat(100_000);
    let (status, _) = problem(host.request("PUT", "/graphs/g")?.body(deep).send()?)?;
    ensure!(status == 400);
    Ok(())
}

/// Arrays are rejected, too, although a positional reader would accept them.
#[test]
fn non_object_bodies_are_400() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let graph = json!({"nodes": [{"node_name": "whoami", "identifier": "me", "inputs": {}, "next_nodes": []}]});
    host.apply("g", &graph)?;
    let settings = "//v1/operator/namespaces/default";
    let grants = "//v1/operator/namespaces/default/grants/lab";
    host.send("PUT", settings, &json!({"slots": 3}))?;
    host.send("PUT", grants, &json!({"config": {"k": "v"}}))?;
    for (method, path) in [
        ("PUT", settings),
        ("PUT", grants),
        ("PUT", "/graphs/g"),
        ("POST", "/graphs/g/validate"),
        ("POST", "/graphs/g/runs"),
    ] {
        for body in [json!([]), json!([{}, null, "k9", 0]), json!(null), json!(7), json!("{}")] {
            let (status, found) = host.refused(method, path, &body)?;
            let detail = found["detail"].as_str().unwrap();
            ensure!(status == 400 && detail.contains("JSON object"), "{path} {body}: {found:#}");
        }
    }
    ensure!(host.get(settings)?["slots"] == 3);
    ensure!(host.get(grants)?["grants"] == json!({"config": {"k": "v"}}));
    ensure!(host.get("/runs")?["runs"] == json!([]), "nothing was started");
    Ok(())
}

#[test]
fn oversized_bodies_are_rejected_unread() -> Result<()> {
    let host = Host::start()?;
    let address = host.url().trim_start_matches("http://").to_owned();
    for path in ["plugins?name=big", "graphs/big/runs"] {
        let mut stream = TcpStream::connect(&address)?;
        let head = format!(
            "POST /v1/namespaces/default/{path} HTTP/1.1\r\nHost: {address}\r\n\
             Authorization: {}\r\n\
             Content-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n",
            host.authorization()
        );
        stream.write_all(head.as_bytes())?;
        // No byte of the body is sent, and the answer still arrives.
        let mut answer = [0; 64];
        let read = stream.read(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        ensure!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    }
    // A body without a stated length is cut off at the limit.
    let endless = reqwest::blocking::Body::new(std::io::repeat(b'x').take(1 << 30));
    let request = host.request("PUT", "/graphs/big")?.body(endless);
    if let Ok(response) = request.send() {
        ensure!(response.status() == 413, "{}", response.status());
    }
    ensure!(host.get("//health")?["status"] == "ok");
    Ok(())
}

#[test]
fn a_start_reports_all_its_problems() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply(
        "start",
        &json!({
            "nodes": [{"node_name": "echo", "identifier": "only",
                       "inputs": {"value": "${{ store.unit }}"}, "next_nodes": []}],
            "store_config": {"required_keys": ["unit", "size"]},
        }),
    )?;
    let start = json!({"inputs": {"valeu": 1}, "store": {"unit": 7, "a.b": "x"}});
    let (status, found) = host.refused("POST", "/graphs/start/runs", &start)?;
    ensure!(status == 422, "{found:#}");
    let text = found["errors"].to_string();
    for name in ["value", "unit", "size", "a.b"] {
        ensure!(text.contains(name), "{name} is not reported: {found:#}");
    }
    let (status, found) = host.refused("POST", "/graphs/start/runs", &json!({"input": {}}))?;
    ensure!(status == 422 && found["errors"][0]["path"] == "$.input", "{found:#}");
    ensure!(host.get("/runs")?["runs"] == json!([]), "nothing was started");
    Ok(())
}

#[test]
fn cross_site_requests_are_rejected() -> Result<()> {
    let host = Host::start()?;
    let request = host.request("GET", "/runs")?.header("origin", "https://evil.example");
    let (status, _) = problem(request.send()?)?;
    ensure!(status == 403);
    let request = host.request("GET", "/runs")?.header("host", "evil.example");
    let (status, _) = problem(request.send()?)?;
    ensure!(status == 403);
    Ok(())
}

#[test]
fn namespaces_cannot_see_each_other() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("g", &json!({"nodes": [{"node_name": "whoami", "identifier": "me", "inputs": {}, "next_nodes": []}]}))?;
    let run = host.run("g", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    let other = "//v1/namespaces/other";
    for path in
        ["/plugins/lab", "/graphs/g", &format!("/runs/{run}"), &format!("/runs/{run}/states")]
    {
        let (status, _) = host.refused("GET", &format!("{other}{path}"), &json!({}))?;
        ensure!(status == 404, "{path} is seen from another namespace");
    }
    let (status, _) = host.refused("POST", &format!("{other}/runs/{run}/cancel"), &json!({}))?;
    ensure!(status == 404);
    host.namespace("other", &json!({"slots": 1}))?;
    for (path, list) in [("/plugins", "plugins"), ("/graphs", "graphs"), ("/runs", "runs")] {
        let found: Value = good(host.request("GET", &format!("{other}{path}"))?.send()?)?;
        ensure!(found[list] == json!([]), "{found}");
    }
    let graph = json!({"nodes": [{"node_name": "whoami", "identifier": "me", "inputs": {}, "next_nodes": []}]});
    let (status, _) = host.refused("PUT", &format!("{other}/graphs/g"), &graph)?;
    ensure!(status == 422, "its plugins do not exist");
    Ok(())
}

#[test]
fn a_hand_written_component_runs() -> Result<()> {
    let host = Host::start()?;
    let text = std::fs::read(checkout().join("tests/fixtures/minimal.wat"))?;
    good(host.upload("minimal", wat::parse_bytes(&text)?.into_owned())?)?;
    let graph = json!({"nodes": [{"node_name": "minimal", "identifier": "only", "inputs": {}, "next_nodes": []}]});
    let found = host.result_of("minimal", &graph, &json!({}))?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    Ok(())
}
