//! The HTTP client of the SDK against the real server: what it sends, and the words and
//! kinds of its errors.

use exosphere_domain::failure::FailureKind;
use exosphere_domain::limits::Limit;
use serde_json::{Value, json};

use super::server::Server;
use super::support::{assert_limit, failure, limit};
use super::{Web, answer, log};

/// Returns the inputs of a request to a server, with more fields.
fn call(server: &Server, path: &str, overrides: Value) -> Value {
    let mut inputs = json!({"url": format!("http://127.0.0.1:{}{path}", server.port)});
    for (key, value) in overrides.as_object().unwrap() {
        inputs[key] = value.clone();
    }
    inputs
}

/// Makes a request, and returns its report.
async fn report(web: &Web, inputs: Value) -> Value {
    answer(web.run("client", inputs, |_| {}).await)
}

/// Checks the kind and words of the error of a request, and whether it is retryable.
async fn assert_error(web: &Web, inputs: Value, expected: (&str, &str, bool)) {
    let found = report(web, inputs.clone()).await;
    let (kind, words, is_retryable) = expected;
    let error = &found["error"];
    assert!(error[0] == kind && error[2] == is_retryable, "{inputs}: {found}");
    assert!(error[1].as_str().unwrap().contains(words), "{inputs}: {found}");
}

#[tokio::test]
async fn client_errors_name_their_cause() {
    let server = Server::start().await;
    let base = format!("http://127.0.0.1:{}", server.port);
    let web = Web::granted(&[format!("{base}/"), "http://127.0.0.1:1/".into()]).await;
    let slow = json!({"timeout_ms": 150});
    let timeout_message = "no whole response within 150ms";
    for (path, overrides, expected) in [
        ("/silent", slow.clone(), ("Timeout", timeout_message, true)),
        ("/drip", slow, ("Timeout", timeout_message, true)),
        ("/half", json!({}), ("Broken", "closed the connection before the end", true)),
        ("/nonsense", json!({}), ("Broken", "the response is not valid HTTP", true)),
        ("/huge-head", json!({}), ("Broken", "the headers of the response are too large", true)),
        ("/upgrade", json!({}), ("Broken", "failed: http upgrade failed", true)),
        ("/endless", json!({"max_bytes": 9}), ("TooLarge", "more than the 9 bytes", false)),
        ("/redirect", json!({}), ("Status", "was redirected to http://127.0.0.1:1/inside", false)),
        ("/a/../b", json!({}), ("Invalid", "the host refuses its URL", false)),
        ("/", json!({"method": "CONNECT"}), ("Denied", "was denied", false)),
        ("/", json!({"headers": [["host", "x"]]}), ("Invalid", "header host is not for a", false)),
        ("/", json!({"headers": [["via", "x"]]}), ("Invalid", "header via is not for a", false)),
        (&format!("/?{}", "x".repeat(9_000)), json!({}), ("Invalid", "its path or query", false)),
    ] {
        assert_error(&web, call(&server, path, overrides), expected).await;
    }
    let rejected: Vec<_> = (0..101).map(|n| json!([format!("x{n}"), "y"])).collect();
    let rejected = call(&server, "/", json!({"headers": rejected}));
    assert_error(&web, rejected, ("Invalid", "its headers are too many", false)).await;
    let closed = ("Unreachable", "GET http://127.0.0.1:1/ failed: connection refused", true);
    assert_error(&web, json!({"url": "http://127.0.0.1:1/"}), closed).await;
    server.wait_until_closed().await;
}

#[tokio::test]
async fn an_unknown_host_name_is_unreachable() {
    let web = Web::granted(&["http://nothing.invalid/".into()]).await;
    // Resolvers without a network take a while to give up.
    let long_limit = |call: &mut _| limit(call, Limit::HttpCallMs, 60_000);
    let done = web.run("client", json!({"url": "http://nothing.invalid/"}), long_limit).await;
    let error = &answer(done)["error"];
    assert!(error[0] == "Unreachable" && error[2] == true, "{error}");
    assert!(error[1].as_str().unwrap().contains("host name was not found"), "{error}");
}

#[tokio::test]
async fn a_denied_client_fails_with_the_command() {
    let server = Server::start().await;
    let base = format!("http://127.0.0.1:{}", server.port);
    let web = Web::granted(&[format!("GET {base}/v1")]).await;
    let denied = call(&server, "/v2?token=hush", json!({"fails": true}));
    let done = web.run("client", denied, |_| {}).await;
    let denied = failure(&done);
    assert_eq!((denied.kind, denied.is_retried()), (FailureKind::Permanent, false), "{denied}");
    let words = format!("GET {base}/v2 was denied: it is not granted to this plugin");
    assert!(denied.message.starts_with(&words), "{denied}");
    let command = format!("exosphere grant add web --http \"GET {base}/\" --namespace team");
    assert!(log(&done).contains(&command), "{done:?}");
    assert!(denied.message.contains(&command), "{denied}");
    // An address that plugins may not reach, although its name is granted.
    let web = Web::with(super::HttpConfig::default(), &[format!("{base}/")]).await;
    let words = "`exosphere serve --http-allow-net NETWORK`";
    assert_error(&web, call(&server, "/", json!({})), ("Denied", words, false)).await;
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn client_bodies_arrive_whole_with_lengths() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    // This is more than any buffer between the two hosts holds.
    let text = "0123456789abcdef".repeat(128 * 1024);
    let found = report(&web, call(&server, "/echo", json!({"method": "PUT", "body": text}))).await;
    assert_eq!(found["status"], 200);
    assert!(found["body"] == text, "the body arrived changed");
    report(&web, call(&server, "/", json!({"method": "POST"}))).await;
    report(&web, call(&server, "/x?y=1", json!({"headers": [["x-a", "b"]]}))).await;
    let seen = server.requests();
    let length = format!("content-length: {}\r\n", text.len());
    assert!(seen[0].contains(&length) && seen[0].contains("content-type: text/plain"));
    assert!(seen[1].contains("content-length: 0\r\n"), "{}", seen[1]);
    assert!(seen[2].starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{}", seen[2]);
    assert!(seen[2].contains("x-a: b\r\n") && !seen[2].contains("content-"), "{}", seen[2]);
}

#[tokio::test]
async fn an_early_refusal_ends_the_request() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    // More than the buffers between the two hold, and the server reads none of it.
    let body = "x".repeat(12 * 1024 * 1024);
    let refused = call(&server, "/refuse", json!({"method": "POST", "body": body}));
    let large = |call: &mut _| limit(call, Limit::HttpRequestBytes, 16 * 1024 * 1024);
    let found = answer(web.run("client", refused, large).await);
    assert_eq!(found["error"][0], "Status", "{found}");
    let words = "/refuse was answered with status 413: too large";
    assert!(found["error"][1].as_str().unwrap().ends_with(words), "{found}");
}

#[tokio::test]
async fn an_early_success_awaits_the_request() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let body = "x".repeat(2 * 1024 * 1024);
    let early_answer = call(&server, "/early", json!({"method": "POST", "body": body}));
    let done = web.run("client", early_answer, |_| {}).await;
    // All but the pieces that waited for the network when the response was there.
    let sent = 2 * 1024 * 1024 - 2 * 16 * 1024;
    assert!(done.usage.output_bytes >= sent, "{:?}", done.usage);
    assert_eq!(answer(done)["body"], "hello");
}

#[tokio::test]
async fn any_status_and_headers_reach_the_node() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let found = report(&web, call(&server, "/redirect", json!({"any_status": true}))).await;
    assert_eq!((&found["status"], &found["error"]), (&json!(302), &Value::Null), "{found}");
    assert_eq!(found["headers"][0], json!(["location", "http://127.0.0.1:1/inside"]));
}

#[tokio::test]
async fn client_keys_equal_those_of_the_host() {
    let server = Server::start().await;
    let mut web = Web::to(&server).await;
    // Denied and invalid requests come first: the denied one counts.
    let before = [
        "http://127.0.0.1:1/".to_owned(),
        "no url".into(),
        format!("http://127.0.0.1:{}/first", server.port),
    ];
    let idempotent = call(&server, "/", json!({"idempotent": true, "before": before}));
    for is_from_host in [false, true] {
        web.grants.idempotency_header = is_from_host;
        assert_eq!(report(&web, idempotent.clone()).await["status"], 200);
    }
    let seen = server.requests();
    let key = |request: &str| {
        let lines: Vec<_> =
            request.lines().filter(|it| it.starts_with("idempotency-key: ")).collect();
        lines.join("\n")
    };
    let keys: Vec<_> = seen.iter().map(|request| key(request)).collect();
    let third = "idempotency-key: run/1/0/3";
    assert_eq!(keys, ["", third, "idempotency-key: run/1/0/2", third]);
    // A key of the node's own is refused if the host sends one.
    let own_key = call(&server, "/", json!({"headers": [["idempotency-key", "mine"]]}));
    let words = "header idempotency-key is not for a node to set";
    assert_error(&web, own_key, ("Invalid", words, false)).await;
}

#[tokio::test]
async fn client_breaches_of_limits_end_attempts() {
    let server = Server::start().await;
    let web = Web::to(&server).await;
    let done = web.run("client", call(&server, "/endless", json!({})), |_| {}).await;
    assert_limit(&done, "http_response_bytes");
    let timed_out = call(&server, "/silent", json!({"timeout_ms": 60_000}));
    let short = |call: &mut _| limit(call, Limit::HttpCallMs, 300);
    assert_limit(&web.run("client", timed_out, short).await, "http_call_ms");
    let large = call(&server, "/early", json!({"method": "POST", "body": "x".repeat(300_000)}));
    let limited = |call: &mut _| limit(call, Limit::HttpRequestBytes, 100_000);
    assert_limit(&web.run("client", large, limited).await, "http_request_bytes");
    let no_calls = |call: &mut _| limit(call, Limit::HttpCalls, 0);
    let done = web.run("client", call(&server, "/", json!({})), no_calls).await;
    assert_limit(&done, "http_calls");
    server.wait_until_closed().await;
}
