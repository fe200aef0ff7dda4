//! HTTP requests of guests, allowed and rejected: a guest of the SDK
//! (`plugins/fixtures/web`, compiled by `cargo xtask plugins`) and a real server on the
//! loopback.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod server;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use exosphere_domain::failure::FailureKind;
use exosphere_domain::grant::Grants;
use exosphere_domain::ids::Digest;
use exosphere_domain::json::read_stored;
use exosphere_domain::limits::Limit;
use exosphere_sandbox::{Completion, HttpConfig, Invocation, Plugin, Sandbox, SandboxConfig};
use serde_json::{Value, json};
use server::Server;
use support::{assert_limit, config, failure, invocation, limit, load, outputs};

/// The fixture in a sandbox, with its grants.
struct Web {
    sandbox: Sandbox,
    plugin: Arc<Plugin>,
    grants: Grants,
}

impl Web {
    /// Creates a fixture that may connect to the loopback, with grants of these
    /// requests.
    async fn granted(rules: &[String]) -> Web {
        let allow_nets = vec!["127.0.0.0/8".parse().unwrap()];
        Web::with(HttpConfig { allow_nets, ..HttpConfig::default() }, rules).await
    }

    /// Creates a fixture that may make all requests to a server.
    async fn to(server: &Server) -> Web {
        Web::granted(&[format!("http://127.0.0.1:{}/", server.port)]).await
    }

    async fn with(http: HttpConfig, rules: &[String]) -> Web {
        // Compiled once for all tests.
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("http-code");
        let sandbox = Sandbox::new(SandboxConfig { http, ..config(&folder) }).unwrap();
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../plugins/target/wasm32-wasip2/release/web.wasm"
        );
        let bytes = std::fs::read(file).expect("no web.wasm: run `cargo xtask plugins`");
        let plugin = load(&sandbox, Digest::from_content(&bytes), &bytes).await;
        let http = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        Web { sandbox, plugin, grants: Grants { http, ..Grants::default() } }
    }

    fn invocation(&self, node: &str, inputs: &Value) -> Invocation {
        let mut call = invocation();
        call.node = node.parse().unwrap();
        call.inputs = inputs.to_string();
        call.context.idempotency_key = "run/1/0".into();
        call.context.namespace = "team".into();
        call.context.plugin = "web".into();
        call.grants = Arc::new(self.grants.clone());
        limit(&mut call, Limit::CpuMs, 5_000);
        call
    }

    async fn run(
        &self,
        node: &str,
        inputs: Value,
        change: impl FnOnce(&mut Invocation),
    ) -> Completion {
        let mut call = self.invocation(node, &inputs);
        change(&mut call);
        self.sandbox.invoke(&self.plugin, call).await
    }

    /// Returns the fixture's report of a request.
    async fn fetch(&self, request: Value) -> Value {
        answer(self.run("fetch", request, |_| {}).await)
    }

    /// Returns the error of a request that is expected to fail, and the log.
    async fn refused(&self, request: Value) -> (String, String) {
        let done = self.run("fetch", request.clone(), |_| {}).await;
        let log = log(&done);
        let answer = answer(done);
        let error = answer["error"].as_str().unwrap_or_else(|| panic!("{request}: {answer}"));
        (error.to_owned(), log)
    }
}

fn answer(done: Completion) -> Value {
    read_stored(&outputs(done)[0]).unwrap()
}

fn log(done: &Completion) -> String {
    done.logs.iter().map(|line| line.message.as_str()).collect::<Vec<_>>().join("\n")
}

fn at(server: &Server, path: &str) -> Value {
    json!({"authority": format!("127.0.0.1:{}", server.port), "path": path})
}

/// Returns a request with more fields set.
fn merged(mut request: Value, changes: Value) -> Value {
    for (key, value) in changes.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

#[tokio::test]
async fn a_granted_request_is_made_and_counted() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let request = merged(
        at(&server, "/echo?q=1"),
        json!({"method": "POST", "headers": [["x-a", "b"]], "body": "some text", "times": 2}),
    );
    let done = web.run("fetch", request, |_| {}).await;
    let usage = done.usage;
    let answer = answer(done);
    assert_eq!(answer["status"], 200, "{answer}");
    // The guest gave no length, so the body came in chunks.
    assert_eq!(answer["body"], "9\r\nsome text\r\n0\r\n\r\n");
    let seen = server.requests();
    assert_eq!((seen.len(), server.connections()), (2, 2));
    assert!(seen[0].starts_with("POST /echo?q=1 HTTP/1.1\r\n"), "{}", seen[0]);
    assert!(seen[0].contains(&format!("host: 127.0.0.1:{}\r\n", server.port)), "{}", seen[0]);
    assert!(seen[0].contains("x-a: b\r\n") && !seen[0].contains("idempotency"), "{}", seen[0]);
    assert!(usage.output_bytes > 18 && usage.input_bytes > 38, "{usage:?}");
    assert!(usage.host_calls > 20, "{usage:?}");
    server.wait_until_closed().await;
}

#[tokio::test]
async fn a_wrong_content_length_is_refused() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let sized = |length: &str| {
        let headers = json!([["content-length", length]]);
        merged(at(&server, "/echo"), json!({"method": "PUT", "headers": headers, "body": "12345"}))
    };
    let accepted = web.fetch(sized("5")).await;
    assert_eq!(accepted["body"], "12345", "{accepted}");
    assert!(server.requests()[0].contains("content-length: 5\r\n"));
    for wrong in ["3", "9"] {
        web.refused(sized(wrong)).await;
    }
    // The bytes beyond the given length were never sent.
    for request in &server.requests()[1..] {
        assert!(request.ends_with("\r\n\r\n123"), "{request}");
    }
    let duplicate_header = json!({"headers": [["content-length", "5"], ["content-length", "6"]]});
    assert!(
        web.refused(merged(at(&server, "/"), duplicate_header)).await.0.contains("InvalidSyntax")
    );
    server.wait_until_closed().await;
}

#[tokio::test]
async fn a_denied_request_logs_its_grant_command() {
    let server = Server::start().await;
    let rules = [
        format!("GET,PUT http://127.0.0.1:{}/v1", server.port),
        format!("http://127.0.0.1:{}/x/", server.port),
    ];
    let web = Web::granted(&rules).await;
    let authority = format!("127.0.0.1:{}", server.port);
    for allowed in [
        at(&server, "/v1"),
        at(&server, "/v1/a?b=/../"),
        merged(at(&server, "/v1/"), json!({"method": "PUT"})),
        merged(at(&server, "/x/"), json!({"method": "DELETE"})),
    ] {
        assert_eq!(web.fetch(allowed.clone()).await["status"], 200, "{allowed}");
    }
    let served = server.connections();
    for request in [
        at(&server, "/v10"),
        at(&server, "/"),
        at(&server, "/x"),
        merged(at(&server, "/v1"), json!({"method": "POST"})),
        merged(at(&server, "/v1"), json!({"method": "get"})),
        merged(at(&server, "/v1"), json!({"scheme": "https"})),
        json!({"authority": "127.0.0.1", "path": "/v1"}),
        json!({"authority": "127.0.0.2", "path": "/v1"}),
        json!({"authority": format!("localhost:{}", server.port), "path": "/v1"}),
        json!({"authority": format!("[::ffff:127.0.0.1]:{}", server.port), "path": "/v1"}),
    ] {
        let (error, log) = web.refused(request.clone()).await;
        assert_eq!(error, "ErrorCode::HttpRequestDenied", "{request}");
        assert!(log.contains("exosphere grant add web --http \""), "{log}");
        assert!(log.contains("\" --namespace team`"), "{log}");
    }
    let (_, log) = web.refused(merged(at(&server, "/v1?secret"), json!({"method": "POST"}))).await;
    let (shown, rule) =
        (format!("POST http://{authority}/v1 is"), format!("\"POST http://{authority}/\""));
    assert!(log.contains(&shown) && log.contains(&rule), "{log}");
    assert_eq!(server.connections(), served, "a request that was denied went out");
}

#[tokio::test]
async fn a_failure_after_a_denial_is_final() {
    let server = Server::start().await;
    let web = Web::granted(&[format!("http://127.0.0.1:{}/v1", server.port)]).await;
    let denied = web.run("hold", at(&server, "/v2"), |_| {}).await;
    let denied = failure(&denied);
    assert_eq!((denied.kind, denied.is_retried()), (FailureKind::Retryable, false), "{denied}");
    assert!(denied.message.contains("exosphere grant add web --http"), "{denied}");
    // Nothing listens on this port; the next attempt may succeed.
    let web = Web::granted(&["http://127.0.0.1:1/".to_owned()]).await;
    let failed = web.run("hold", json!({"authority": "127.0.0.1:1"}), |_| {}).await;
    assert!(failure(&failed).is_retried(), "{}", failure(&failed));
}

#[tokio::test]
async fn without_a_grant_requests_are_denied() {
    let server = Server::start().await;
    let web = Web::granted(&[]).await;
    let (error, _) = web.refused(at(&server, "/")).await;
    assert_eq!(error, "ErrorCode::HttpRequestDenied");
    let config = answer(web.run("config", json!({"key": "region"}), |_| {}).await);
    assert_eq!(config, json!({"value": null, "all": []}));
    assert_eq!(server.connections(), 0);
    // The guest imports the interfaces that it uses, not all that the SDK could.
    let imports = web.plugin.imports();
    assert!(imports.iter().any(|import| import.starts_with("wasi:config/store@")), "{imports:?}");
}

#[tokio::test]
async fn a_guest_reads_its_granted_configuration() {
    let mut web = Web::granted(&[]).await;
    web.grants.config = [("region".into(), "eu".into()), ("tier".into(), "free".into())].into();
    let config = answer(web.run("config", json!({"key": "region"}), |_| {}).await);
    assert_eq!(config, json!({"value": "eu", "all": [["region", "eu"], ["tier", "free"]]}));
}

#[tokio::test]
async fn odd_addresses_are_refused_despite_grants() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let port = server.port;
    for (authority, path, expected) in [
        (format!("2130706433:{port}"), "/", "HttpRequestUriInvalid"),
        (format!("0x7f.1:{port}"), "/", "HttpRequestUriInvalid"),
        (format!("127.1:{port}"), "/", "HttpRequestUriInvalid"),
        (format!("0177.0.0.1:{port}"), "/", "HttpRequestUriInvalid"),
        (format!("user:pw@127.0.0.1:{port}"), "/", "HttpRequestUriInvalid"),
        ("127.0.0.1:0".into(), "/", "HttpRequestUriInvalid"),
        (String::new(), "/", "authority"),
        ("[fe80::1%25eth0]:80".into(), "/", "HttpRequestUriInvalid"),
        (format!("127.0.0.1:{port}"), "//127.0.0.1/", "HttpRequestUriInvalid"),
        (format!("127.0.0.1:{port}"), "/a/../b", "HttpRequestUriInvalid"),
        (format!("127.0.0.1:{port}"), "/a/%2e%2E/b", "HttpRequestUriInvalid"),
        (format!("127.0.0.1:{port}"), "/a%5cb", "HttpRequestUriInvalid"),
        (format!("127.0.0.1:{port}"), "http://other.example/", "path"),
        (format!("127.0.0.1:{port}"), "/a b", "path"),
        (format!("127.0.0.1:{port}"), "/a\r\nx: y", "path"),
    ] {
        let (error, log) = web.refused(json!({"authority": authority, "path": path})).await;
        assert!(error.contains(expected), "{authority} {path}: {error}\n{log}");
    }
    let (error, _) = web.refused(merged(at(&server, "/"), json!({"method": "CONNECT"}))).await;
    assert!(error.contains("HttpRequestDenied"), "{error}");
    let long_path = format!("/{}", "x".repeat(9_000));
    assert_eq!(web.refused(at(&server, &long_path)).await.0, "path");
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_granted_name_cannot_reach_private_addresses() {
    let server = Server::start().await;
    let port = server.port;
    let rules = [
        format!("http://localhost:{port}/"),
        format!("http://127.0.0.1:{port}/"),
        format!("http://[::1]:{port}/"),
        format!("http://[::ffff:127.0.0.1]:{port}/"),
        "http://169.254.169.254/".into(),
        "http://10.0.0.1/".into(),
    ];
    let web = Web::with(HttpConfig::default(), &rules).await;
    for host in ["localhost", "127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
        let (error, log) = web.refused(json!({"authority": format!("{host}:{port}")})).await;
        assert_eq!(error, "ErrorCode::DestinationIpProhibited", "{host}: {log}");
        assert!(log.contains("not on the public internet"), "{log}");
    }
    for host in ["169.254.169.254", "10.0.0.1"] {
        let (error, _) = web.refused(json!({"authority": host})).await;
        assert_eq!(error, "ErrorCode::DestinationIpProhibited", "{host}");
    }
    assert_eq!(server.connections(), 0);
    // A network that the operator allowed, under the same name.
    let allowed = Web::granted(&rules).await;
    let answer = allowed.fetch(json!({"authority": format!("localhost.:{port}")})).await;
    assert_eq!(answer["status"], 200, "{answer}");
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let answer = web.fetch(at(&server, "/redirect")).await;
    assert_eq!(answer["status"], 302);
    assert!(answer["headers"].to_string().contains("http://127.0.0.1:1/inside"), "{answer}");
    let (error, _) = web.refused(json!({"authority": "127.0.0.1:1", "path": "/inside"})).await;
    assert_eq!(error, "ErrorCode::HttpRequestDenied");
}

#[tokio::test]
async fn smuggling_headers_are_refused() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    for name in [
        "Connection",
        "Transfer-Encoding",
        "Upgrade",
        "TE",
        "Trailer",
        "Keep-Alive",
        "Host",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Expect",
    ] {
        let request = merged(at(&server, "/"), json!({"headers": [[name, "x"]]}));
        assert!(web.refused(request).await.0.contains("Forbidden"), "{name}");
    }
    for (name, value) in [
        ("x", "a\r\nhost: b"),
        ("x\r\ny", "a"),
        ("x y", "a"),
        ("x", "a\0"),
        ("content-length", "+1"),
    ] {
        let request = merged(at(&server, "/"), json!({"headers": [[name, value]]}));
        assert!(web.refused(request).await.0.contains("InvalidSyntax"), "{name:?} {value:?}");
    }
    let headers: Vec<_> = (0..101).map(|n| json!([format!("x{n}"), "y"])).collect();
    let (error, _) = web.refused(merged(at(&server, "/"), json!({"headers": headers}))).await;
    assert!(error.contains("HttpRequestHeaderSectionSize"), "{error}");
    assert_eq!(server.connections(), 0);
    // Hop-by-hop headers of a response do not reach the guest either.
    let answer = web.fetch(at(&server, "/headers")).await;
    assert_eq!(answer["headers"], json!([["content-length", "0"], ["x-a", "b"]]));
}

#[tokio::test]
async fn unsent_requests_have_bounded_memory() {
    let web = Web::granted(&[]).await;
    let made = |count: u32, size: usize| {
        let inputs = json!({"count": count, "size": size});
        async { answer(web.run("fields", inputs, |_| {}).await) }
    };
    assert_eq!(made(10, 31).await, json!({"made": 10, "error": null}));
    assert_eq!(made(10, 9_000).await, json!({"made": 0, "error": "method,authority,path"}));
    // Large headers end the guest, like any other exceeded limit.
    let large = json!({"authority": "a.example", "headers": [["x", "y".repeat(20_000)]]});
    let done = web.run("fetch", large, |_| {}).await;
    assert_eq!(failure(&done).kind, FailureKind::Trap, "{:?}", done.outcome);
    assert!(failure(&done).message.contains("larger than 16 KiB"), "{}", failure(&done));
}

#[tokio::test]
async fn a_granted_idempotency_key_is_the_hosts() {
    let server = Server::start().await;
    let mut web = Web::to(&server).await;
    let own_key = json!({"headers": [["idempotency-key", "mine"]]});
    web.fetch(merged(at(&server, "/"), own_key.clone())).await;
    assert!(server.requests()[0].contains("idempotency-key: mine\r\n"));
    web.grants.idempotency_header = true;
    assert!(web.refused(merged(at(&server, "/"), own_key)).await.0.contains("Forbidden"));
    web.fetch(merged(at(&server, "/"), json!({"times": 2}))).await;
    let seen = server.requests();
    assert!(seen[1].contains("idempotency-key: run/1/0/1\r\n"), "{}", seen[1]);
    assert!(seen[2].contains("idempotency-key: run/1/0/2\r\n"), "{}", seen[2]);
}

#[tokio::test]
async fn too_many_requests_end_the_attempt() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let request = merged(at(&server, "/"), json!({"times": 4}));
    let done = web.run("fetch", request.clone(), |call| limit(call, Limit::HttpCalls, 3)).await;
    assert_limit(&done, "http_calls");
    assert_eq!(server.connections(), 3);
    // Denied requests count too.
    let denied = json!({"authority": "a.example", "times": 4});
    let done = web.run("fetch", denied, |call| limit(call, Limit::HttpCalls, 3)).await;
    assert_limit(&done, "http_calls");
    let done = web.run("fetch", request, |call| limit(call, Limit::HttpCalls, 4)).await;
    assert_eq!(answer(done)["status"], 200);
}

#[tokio::test]
async fn request_and_response_bodies_are_limited() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let done = web.run("fetch", at(&server, "/endless"), |_| {}).await;
    assert_limit(&done, "http_response_bytes");
    let max = Limit::HttpResponseBytes.default();
    assert!((max..max + (1 << 20)).contains(&done.usage.input_bytes), "{:?}", done.usage);
    let piece = json!({"method": "POST", "body": "x".repeat(4096)});
    let done = web
        .run("endless", merged(at(&server, "/early"), piece), |call| {
            limit(call, Limit::HttpRequestBytes, 100_000);
        })
        .await;
    assert_limit(&done, "http_request_bytes");
    assert!(done.usage.output_bytes < 100_000 + (1 << 16), "{:?}", done.usage);
    server.wait_until_closed().await;
}

#[tokio::test]
async fn a_request_ends_at_its_timeout() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    for (node, path) in [("fetch", "/silent"), ("fetch", "/drip"), ("hold", "/drip")] {
        let started = Instant::now();
        let request = at(&server, path);
        let done = web.run(node, request, |call| limit(call, Limit::HttpCallMs, 400)).await;
        assert_limit(&done, "http_call_ms");
        let elapsed = started.elapsed();
        assert!(
            elapsed >= Duration::from_millis(400) && elapsed < Duration::from_secs(4),
            "{elapsed:?}"
        );
        server.wait_until_closed().await;
    }
}

#[tokio::test]
async fn a_guests_own_timeout_is_not_fatal() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let with_timeout = |key: &str, path: &str| merged(at(&server, path), json!({key: 100}));
    let (error, _) = web.refused(with_timeout("first_byte_timeout_ms", "/silent")).await;
    assert_eq!(error, "ErrorCode::ConnectionReadTimeout");
    let stalls = merged(at(&server, "/drip"), json!({"between_bytes_timeout_ms": 10}));
    let (error, _) = web.refused(stalls).await;
    assert!(error.contains("ConnectionReadTimeout"), "{error}");
    server.wait_until_closed().await;
    // A longer timeout of the guest does not extend the limit.
    let long_timeout = merged(at(&server, "/silent"), json!({"first_byte_timeout_ms": 3_600_000}));
    let done = web.run("fetch", long_timeout, |call| limit(call, Limit::HttpCallMs, 300)).await;
    assert_limit(&done, "http_call_ms");
}

#[tokio::test]
async fn invalid_responses_are_errors_for_the_guest() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    for (path, expected) in [
        ("/half", "HttpResponseIncomplete"),
        ("/nonsense", "HttpProtocolError"),
        ("/huge-head", "HttpResponseHeaderSectionSize"),
        ("/upgrade", "HttpUpgradeFailed"),
    ] {
        let (error, log) = web.refused(at(&server, path)).await;
        assert!(error.contains(expected), "{path}: {error}\n{log}");
    }
    server.wait_until_closed().await;
    let closed = Web::granted(&["http://127.0.0.1:1/".into()]).await;
    let (error, log) = closed.refused(json!({"authority": "127.0.0.1:1"})).await;
    assert_eq!(error, "ErrorCode::ConnectionRefused");
    assert!(log.contains("GET http://127.0.0.1:1/ failed: connection refused"), "{log}");
}

#[tokio::test]
async fn the_deadline_ends_a_request() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let done =
        web.run("fetch", at(&server, "/drip"), |call| limit(call, Limit::TimeoutMs, 400)).await;
    assert_eq!(failure(&done).kind, FailureKind::Timeout, "{:?}", done.outcome);
    server.wait_until_closed().await;
}

#[tokio::test]
async fn a_dropped_guest_leaves_no_connection() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let idle = tasks();
    for (node, path) in [("fetch", "/silent"), ("fetch", "/drip"), ("hold", "/endless")] {
        let before = server.connections();
        let call = web.invocation(node, &at(&server, path));
        tokio::select! {
            done = web.sandbox.invoke(&web.plugin, call) => panic!("{:?}", done.outcome),
            () = async {
                server.wait_until_connected().await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            } => {}
        }
        assert_eq!(server.connections(), before + 1);
        server.wait_until_closed().await;
        assert_eq!(tasks(), idle, "a task is left");
    }
    assert_eq!(web.sandbox.free_instances(), 2);
    assert_eq!(web.fetch(at(&server, "/")).await["body"], "hello");
}

#[tokio::test]
async fn waiting_for_a_connection_costs_no_time() {
    let server = Server::start().await;
    let http = HttpConfig {
        allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
        max_connections: 1,
        ..HttpConfig::default()
    };
    let web = Web::with(http, &[format!("http://127.0.0.1:{}/", server.port)]).await;
    let slow = web.run("fetch", at(&server, "/drip"), |call| limit(call, Limit::TimeoutMs, 700));
    let waits = async {
        server.wait_until_connected().await;
        let short = |call: &mut Invocation| limit(call, Limit::HttpCallMs, 200);
        answer(web.run("fetch", at(&server, "/"), short).await)
    };
    let (slow, waited) = tokio::join!(slow, waits);
    assert_eq!(failure(&slow).kind, FailureKind::Timeout);
    assert_eq!(waited["status"], 200, "{waited}");
}

#[tokio::test]
async fn https_requires_a_trusted_certificate() {
    let server = Server::with_tls().await;
    let rules = [
        format!("https://localhost:{}/", server.port),
        format!("https://127.0.0.1:{}/", server.port),
    ];
    let trusting = |extra_roots| HttpConfig {
        allow_nets: vec!["127.0.0.0/8".parse().unwrap()],
        extra_roots,
        ..HttpConfig::default()
    };
    let request =
        |host: &str| json!({"scheme": "https", "authority": format!("{host}:{}", server.port)});
    let web = Web::with(trusting(vec![server::ROOT_CERTIFICATE.to_vec()]), &rules).await;
    let answer = web.fetch(request("localhost")).await;
    assert_eq!(answer["body"], "hello", "{answer}");
    // The certificate names another host.
    assert_eq!(web.refused(request("127.0.0.1")).await.0, "ErrorCode::TlsCertificateError");
    // No root that is trusted here signed the certificate; without any roots, every
    // certificate fails.
    let strict = Web::with(trusting(Vec::new()), &rules).await;
    let (error, log) = strict.refused(request("localhost")).await;
    let expected = ["ErrorCode::TlsCertificateError", "ErrorCode::ConfigurationError"];
    assert!(expected.contains(&error.as_str()), "{error}\n{log}");
    server.wait_until_closed().await;
}
