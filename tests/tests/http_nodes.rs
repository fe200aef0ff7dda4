//! The example plugins that call HTTP services, `fetch` and `notify`, in a real host and against
//! a server on this machine.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::collector::Collector;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A request that the service received.
#[derive(Debug, Clone)]
struct Received {
    /// The method and the path.
    line: String,
    key: Option<String>,
    traceparent: Option<String>,
    body: String,
}

/// A service that answers by the path of a request, and records the requests.
struct Service {
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    connections: Arc<AtomicUsize>,
}

impl Service {
    /// Starts the service, which ends with the process.
    fn start() -> Result<Service> {
        let listener = TcpListener::bind("127.0.0.3:0")?;
        let address = listener.local_addr()?;
        let (received, connections) = (Arc::default(), Arc::default());
        let service = Service { address, received, connections };
        let (received, connections) =
            (Arc::clone(&service.received), Arc::clone(&service.connections));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, SeqCst);
                let _ = serve(stream, &received);
            }
        });
        Ok(service)
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Returns the requests of a path, in order.
    fn received(&self, line: &str) -> Vec<Received> {
        let all = self.received.lock();
        all.iter().filter(|request| request.line == line).cloned().collect()
    }
}

fn serve(mut stream: TcpStream, received: &Mutex<Vec<Received>>) -> Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => head.push(line.to_owned()),
        }
    }
    let value = |name: &str| {
        let mut fields = head.iter().filter_map(|line| line.split_once(": "));
        fields.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, it)| it.to_owned())
    };
    let length = value("content-length").and_then(|it| it.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let first = head.first().context("no request")?;
    let line = first.trim_end_matches(" HTTP/1.1").to_owned();
    let (key, traceparent) = (value("idempotency-key"), value("traceparent"));
    let mut seen = received.lock();
    let body = String::from_utf8(body)?;
    seen.push(Received { line: line.clone(), key, traceparent, body });
    let times = seen.iter().filter(|it| it.line == line).count();
    drop(seen);
    let (status, body) = match line.split(' ').nth(1).unwrap_or_default() {
        "/v1/users?page=2" => (200, r#"{"items": [{"name": "Ann"}, {"name": "Bob"}]}"#),
        "/hooks/busy" if times < 3 => (503, "come back later"),
        "/hooks/busy" | "/hooks/other" => (202, ""),
        _ => (404, "there is nothing here"),
    };
    let length = body.len();
    write!(stream, "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n\r\n{body}")?;
    Ok(())
}

/// Starts a host whose plugins may call the service, if that is granted.
fn start(service: &Service) -> Result<(Host, TempDir)> {
    start_with(service, &[])
}

fn start_with(service: &Service, arguments: &[&str]) -> Result<(Host, TempDir)> {
    let folder = tempfile::tempdir()?;
    let allowed = format!("{}/32", service.address.ip());
    let arguments = [&["--http-allow-net", allowed.as_str()], arguments].concat();
    let host = Host::start_with(folder.path(), &arguments, |_| ())?;
    host.push("fetch")?;
    host.push("notify")?;
    Ok((host, folder))
}

/// Returns a graph of one node, which is retried at once.
fn one_node_graph(node: &str, inputs: &Value) -> Value {
    json!({
        "nodes": [{"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []}],
        "retry_policy": {"max_retries": 3, "strategy": "FIXED", "backoff_factor": 0},
    })
}

#[test]
fn a_granted_fetch_returns_the_part() -> Result<()> {
    let service = Service::start()?;
    let (host, _folder) = start(&service)?;
    host.grant("fetch", &json!({"http": [format!("GET {}", service.url("/v1/"))]}))?;
    let inputs =
        json!({"url": service.url("/v1/users"), "query": {"page": "2"}, "part": "/items/1/name"});
    let run = host.result_of("users", &one_node_graph("fetch", &inputs), &json!({}))?;
    ensure!(run["status"] == "SUCCESS", "{run:#}");
    let output = host.output(run["run"].as_str().unwrap(), "only")?;
    ensure!(output == json!({"value": "Bob"}), "{output}");

    // The node does not ask again for a missing document.
    let missing = one_node_graph("fetch", &json!({"url": service.url("/v1/none")}));
    let run = host.result_of("missing", &missing, &json!({}))?;
    let message = run["failures"][0]["failure"]["message"].as_str().unwrap_or_default();
    let words = format!("GET {} was answered with status 404: ", service.url("/v1/none"));
    ensure!(message.starts_with(&words) && message.ends_with("nothing here"), "{run:#}");
    ensure!(run["counts"]["retries"] == 0, "{run:#}");
    ensure!(service.received("GET /v1/none").len() == 1);
    Ok(())
}

/// Lets a node make a request, and returns the id of its run and the header of the request.
fn traced(arguments: &[&str]) -> Result<(String, Option<String>)> {
    let service = Service::start()?;
    let (host, _folder) = start_with(&service, arguments)?;
    host.grant("fetch", &json!({"http": [format!("GET {}", service.url("/v1/"))]}))?;
    let inputs = json!({"url": service.url("/v1/users"), "query": {"page": "2"}});
    let run = host.result_of("users", &one_node_graph("fetch", &inputs), &json!({}))?;
    ensure!(run["status"] == "SUCCESS", "{run:#}");
    // What is queued is sent before the host ends.
    let mut host = host;
    host.terminate()?;
    host.wait()?;
    let run = run["run"].as_str().context("an id")?.to_owned();
    Ok((run, service.received("GET /v1/users?page=2")[0].traceparent.clone()))
}

#[test]
fn a_traceparent_names_the_attempt() -> Result<()> {
    let collector = Collector::start()?;
    let endpoint = collector.url();
    let (run, traceparent) = traced(&["--otlp-endpoint", &endpoint])?;
    let spans = collector.spans(&run)?;
    let span = spans.iter().find(|span| span.name == "only").context("the span")?;
    let expected = format!("00-{}-{}-01", run.replace('-', ""), span.span_id);
    ensure!(traceparent.as_deref() == Some(&expected), "{traceparent:?} and {span:#?}");

    // The server is told that the trace of another run is not recorded.
    let (run, traceparent) = traced(&["--otlp-endpoint", &endpoint, "--otlp-sample", "0"])?;
    let traceparent = traceparent.context("a traceparent")?;
    ensure!(traceparent.contains(&run.replace('-', "")), "{traceparent}");
    ensure!(traceparent.ends_with("-00") && collector.spans(&run)?.is_empty(), "{traceparent}");

    let (_, traceparent) = traced(&[])?;
    ensure!(traceparent.is_none(), "{traceparent:?}");
    Ok(())
}

#[test]
fn an_ungranted_request_names_its_command() -> Result<()> {
    let service = Service::start()?;
    let (host, _folder) = start(&service)?;
    let url = service.url("/v2/users?token=hush");
    let graph = one_node_graph("fetch", &json!({"url": url}));
    // Without any grant, the graph is refused.
    let (status, problem) = host.refused("PUT", "/graphs/early", &graph)?;
    let text = problem.to_string();
    ensure!(status == 422 && text.contains("exosphere grant add fetch --http"), "{problem:#}");
    // With a grant of something else, the attempt fails for good.
    host.grant("fetch", &json!({"http": [format!("GET {}", service.url("/v1/"))]}))?;
    let run = host.result_of("denied", &graph, &json!({}))?;
    ensure!(run["status"] == "FAILED" && run["counts"]["retries"] == 0, "{run:#}");
    let failure = &run["failures"][0]["failure"];
    let message = failure["message"].as_str().unwrap_or_default();
    let denied = format!("GET {} was denied: it is not granted", service.url("/v2/users"));
    let command = format!(
        "`exosphere grant add fetch --http \"GET {}\" --namespace default`",
        service.url("/")
    );
    ensure!(failure["kind"] == "permanent" && message.starts_with(&denied), "{run:#}");
    ensure!(message.contains(&command) && !message.contains("hush"), "{run:#}");
    ensure!(service.connections.load(SeqCst) == 0, "a denied request went out");
    // The command lifts the refusal.
    let rule = format!("GET {}", service.url("/"));
    host.grant("fetch", &json!({"http": [rule]}))?;
    host.result_of("denied", &graph, &json!({}))?;
    ensure!(service.received("GET /v2/users?token=hush").len() == 1);
    Ok(())
}

#[test]
fn repeated_notifications_send_equal_keys() -> Result<()> {
    let service = Service::start()?;
    let (host, _folder) = start(&service)?;
    let rule = format!("POST {}", service.url("/hooks/"));
    let inputs = json!({"url": service.url("/hooks/busy"), "text": "done", "data": [1]});
    let graph = one_node_graph("notify", &inputs);
    // The keys of the client and of the host are the same.
    for (round, is_from_host) in [(0, false), (1, true)] {
        let grant = json!({"http": [&rule], "idempotency_header": is_from_host});
        host.grant("notify", &grant)?;
        service.received.lock().clear();
        let run = host.result_of("busy", &graph, &json!({}))?;
        ensure!(run["status"] == "SUCCESS" && run["counts"]["retries"] == 2, "{round}: {run:#}");
        let id = run["run"].as_str().unwrap();
        ensure!(host.output(id, "only")? == json!({"status": 202}));
        let states = host.states(id, "only")?;
        let state = states[0]["state"].clone();
        let requests = service.received("POST /hooks/busy");
        let keys: Vec<_> = requests.iter().filter_map(|request| request.key.clone()).collect();
        let first = keys.first().context("no request has a key")?;
        ensure!(first.starts_with(&format!("{id}/")) && first.ends_with("/0/1"), "{first}");
        ensure!(keys == vec![first.clone(); 3], "{round}: {requests:#?}");
        let expected = json!({"text": "done", "data": [1], "state": state});
        for request in requests {
            ensure!(serde_json::from_str::<Value>(&request.body)? == expected, "{request:?}");
        }
    }
    Ok(())
}

#[test]
fn different_work_sends_different_keys() -> Result<()> {
    let service = Service::start()?;
    let (host, _folder) = start(&service)?;
    host.grant("notify", &json!({"http": [format!("POST {}", service.url("/hooks/"))]}))?;
    let inputs = json!({"url": service.url("/hooks/other"), "text": "done"});
    for _ in 0..2 {
        let run = host.result_of("other", &one_node_graph("notify", &inputs), &json!({}))?;
        ensure!(run["status"] == "SUCCESS", "{run:#}");
    }
    let requests = service.received("POST /hooks/other");
    let keys: Vec<_> = requests.iter().filter_map(|request| request.key.clone()).collect();
    ensure!(keys.len() == 2 && keys[0] != keys[1], "{keys:?}");
    Ok(())
}
