//! Tests of the CLI as a script sees it: exit codes, standard output, standard error and
//! HTTP requests. The host is a thread with prepared answers; tests against the real
//! host are in `tests/`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

const RUN: &str = "0195b7f0-0000-7000-8000-000000000001";

/// A fake host that gives these answers, one per connection, and then stops.
struct Canned {
    url: String,
    requests: JoinHandle<Vec<String>>,
}

impl Canned {
    fn new(answers: &[(u16, &str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answers: Vec<_> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let requests = thread::spawn(move || {
            answers.iter().map(|(status, body)| serve(&listener, *status, body)).collect()
        });
        Canned { url, requests }
    }

    fn run(&self, line: &str) -> Output {
        exosphere(&format!("--host {} {line}", self.url))
    }

    /// Returns the requests that arrived: method, path and query, and body.
    fn requests(self) -> Vec<String> {
        self.requests.join().unwrap()
    }
}

fn serve(listener: &TcpListener, status: u16, body: &str) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let request = read_request(&stream);
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    request
}

fn read_request(stream: &TcpStream) -> String {
    let mut lines = BufReader::new(stream);
    let mut first = String::new();
    lines.read_line(&mut first).unwrap();
    let mut length = 0;
    loop {
        let mut header = String::new();
        lines.read_line(&mut header).unwrap();
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    lines.read_exact(&mut body).unwrap();
    let request = first.trim_end().trim_end_matches(" HTTP/1.1");
    format!("{request} {}", String::from_utf8_lossy(&body)).trim_end().to_owned()
}

fn exosphere(line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_exosphere"));
    command.args(line.split_whitespace());
    command.env_remove("EXOSPHERE_HOST").env_remove("EXOSPHERE_NAMESPACE");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn run_json(status: &str, version: u32) -> String {
    format!(
        r#"{{"run":"{RUN}","graph":"g","revision":1,"status":"{status}","version":{version},
            "created_at":0,"ended_at":5,"counts":{{"states":3,"success":2}},"failures":[]}}"#
    )
}

/// Returns a stream of events of a run.
fn live(runs: &[&str]) -> String {
    let event = |run: &&str| format!("id: 1\nevent: run\ndata: {}\n\n", run.replace('\n', " "));
    let events: String = runs.iter().map(event).collect();
    format!("retry: 1000\n\n: ping\n\n{events}")
}

#[test]
fn json_output_is_the_answer_unchanged() {
    let body = r#"{"plugins": [ ], "later": 12345678901234567890.5}"#;
    let host = Canned::new(&[(200, body)]);
    let output = host.run("plugin list --json");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(text(&output.stdout), format!("{body}\n"));
    assert_eq!(text(&output.stderr), "");
    assert_eq!(host.requests(), ["GET /v1/namespaces/default/plugins"]);
}

#[test]
fn refusals_list_every_mistake() {
    let problem = r#"{"title":"Invalid graph","status":422,"detail":"2 mistakes",
        "errors":[{"path":"$.nodes[0]","message":"no\u001b[2J"},{"path":"$.x","message":"unknown"}]}"#;
    let file = tempfile::Builder::new().suffix(".json").tempfile().unwrap();
    fs::write(file.path(), "{}").unwrap();
    let line = format!("graph apply {} --name g --namespace team", file.path().display());

    let host = Canned::new(&[(422, problem), (422, problem)]);
    let output = host.run(&line);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "error: {}: 2 mistakes\n  $.nodes[0]: no\\u{{1b}}[2J\n  $.x: unknown\n",
        file.path().display()
    );
    assert_eq!((text(&output.stdout), text(&output.stderr)), (String::new(), expected));

    // A program gets the problem document.
    let output = host.run(&format!("{line} --json"));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(text(&output.stdout), format!("{problem}\n"));
    assert_eq!(host.requests(), ["PUT /v1/namespaces/team/graphs/g {}"; 2]);
}

#[test]
fn each_failure_has_its_exit_code() {
    for (status, body, code) in [
        (404, r#"{"detail":"no such plugin"}"#, 1),
        (413, "", 1),
        (429, r#"{"type":"/problems/too-many-requests","status":429,"detail":"a rate"}"#, 7),
        (500, r#"{"detail":"an error in the host's log: 42"}"#, 6),
        (503, "<html>", 7),
        (503, r#"{"type":"/problems/stopping","detail":"not started"}"#, 7),
        (503, r#"{"type":"/problems/unavailable","detail":"the database"}"#, 8),
        (302, "", 6),
        (200, "<html>", 6),
        (200, "[]", 6),
    ] {
        let output = Canned::new(&[(status, body)]).run("plugin inspect text");
        assert_eq!(output.status.code(), Some(code), "{status} {body}: {output:?}");
        assert_eq!(text(&output.stdout), "");
        assert!(text(&output.stderr).starts_with("error: "), "{output:?}");
    }
    // Bound and released, so that nothing listens on that port.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = tempfile::Builder::new().suffix(".wasm").tempfile().unwrap();
    fs::write(file.path(), vec![0; 1 << 20]).unwrap();
    for line in ["run list", &format!("plugin push --name x {}", file.path().display())] {
        let output = exosphere(&format!("--host http://127.0.0.1:{port} {line}"));
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        let stderr = text(&output.stderr);
        assert!(stderr.contains("Connection refused"), "{stderr}");
        assert!(stderr.contains("exosphere serve"), "{stderr}");
    }

    for line in ["run list --status no", "--host ftp://example.com run list"] {
        assert_eq!(exosphere(line).status.code(), Some(2), "{line}");
    }
    for (given, expected) in [("1.2.3.4", "1.2.3.4/32"), ("::1", "::1/128"), ("x", "10.1.0.0/16")] {
        let output = exosphere(&format!("serve --http-allow-net {given}"));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(text(&output.stderr).contains(expected), "{output:?}");
    }
}

#[test]
fn watch_exits_by_the_runs_status() {
    for (status, code) in [("SUCCESS", 0), ("FAILED", 4), ("CANCELLED", 5)] {
        let (running, ended) = (run_json("RUNNING", 3), run_json(status, 4));
        let live = live(&[&running, &ended]);
        let host = Canned::new(&[(201, &running), (200, &live), (200, &ended)]);
        let output = host.run("run start g --input n=3 --input who=Ada --store k=1 --watch --json");
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(text(&output.stdout), format!("{ended}\n"), "only the end, once");
        assert!(text(&output.stderr).contains("2/3 states"), "{output:?}");
        let mut requests = host.requests();
        // Each start has an idempotency key of its own.
        let (start, key) = requests[0].split_once(r#""idempotency_key":"cli-"#).unwrap();
        let (key, rest) = key.split_once(r#"","#).unwrap();
        assert_eq!(key.len(), 36);
        requests[0] = format!("{start}{rest}");
        let body = r#"{"inputs":{"n":3,"who":"Ada"},"store":{"k":"1"}}"#;
        assert_eq!(
            requests,
            [
                format!("POST /v1/namespaces/default/graphs/g/runs {body}"),
                format!("GET /v1/namespaces/default/runs/{RUN}/live?for_ms=45000"),
                format!("GET /v1/namespaces/default/runs/{RUN}"),
            ]
        );
    }
}

/// The answers of a newer host: unknown values of lists, unknown members, and null for members
/// that this version always fills.
#[test]
fn answers_of_newer_hosts_are_shown() {
    let run = format!(
        r#"{{"run":"{RUN}","graph":"g","revision":1,"status":"SUSPENDED","version":null,
            "created_at":0,"ended_at":null,"mood":{{"a":[1]}},"counts":{{"states":3,"new":1}}}}"#
    );
    let states = format!(
        r#"{{"states":[{{"state":"{RUN}/1","number":1,"identifier":"a","status":"DREAMING",
            "created_at":0,"color":"red"}}],"next":null,"total":1}}"#
    );
    let runs = format!(r#"{{"runs":[{run}],"next":null,"total":1}}"#);
    let plugins = r#"{"plugins":[{"name":"p","version":null,"digest":"00","size":1,
        "uploaded_at":0,"nodes":["n"],"signed":true}],"next":null}"#;
    let hosts = r#"{"hosts":[{"number":1,"name":"h","version":null,"alive":true,
        "first_seen_at":0,"started_at":0,"ended_at":null,"zone":"a"}]}"#;
    let namespaces = r#"{"namespaces":[{"name":"n","limits":{"newest_bytes":7},"slots":null,
        "effective":{"limits":{"newest_bytes":7},"slots":2}}],"next":null}"#;
    for (line, answer, shown) in [
        (&format!("run show {RUN}")[..], &run[..], "SUSPENDED"),
        ("run list", &runs, "SUSPENDED"),
        (&format!("run states {RUN}"), &states, "DREAMING"),
        ("plugin list", plugins, "00"),
        ("host list", hosts, "h"),
        ("namespace list", namespaces, "newest_bytes=7"),
    ] {
        let output = Canned::new(&[(200, answer)]).run(line);
        assert_eq!(output.status.code(), Some(0), "{line}: {output:?}");
        assert!(text(&output.stdout).contains(shown), "{line}: {output:?}");
    }
}

#[test]
fn watch_follows_an_unknown_status_to_the_end() {
    let (open, ended) = (run_json("SUSPENDED", 3), run_json("ARCHIVED", 4));
    let open = open.replace(r#""ended_at":5"#, r#""ended_at":null"#);
    let host = Canned::new(&[(200, &live(&[&open, &ended])), (200, &ended)]);
    let output = host.run(&format!("run watch {RUN}"));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stdout).contains("ARCHIVED"), "{output:?}");
    assert!(text(&output.stderr).contains("the run ended ARCHIVED"), "{output:?}");
}

/// A change sends the whole settings: a limit that the client does not know would be lost.
#[test]
fn unknown_limits_refuse_a_change() {
    let settings = r#"{"name":"default","limits":{"newest_bytes":7},"slots":null,
        "effective":{"limits":{"newest_bytes":7},"slots":2}}"#;
    let host = Canned::new(&[(200, settings)]);
    let output = host.run("namespace set --slots 3");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(text(&output.stderr).contains("newest_bytes"), "{output:?}");
    assert_eq!(host.requests().len(), 1, "nothing was set");
}

#[test]
fn starts_are_repeated_with_their_key() {
    let unavailable = r#"{"detail":"not started: the database is away","reason":"not-done"}"#;
    // A generated key belongs to this command, so any of its tries may have started the
    // run.
    let known = run_json("RUNNING", 3).replacen('{', r#"{"started_before":true,"#, 1);
    let host = Canned::new(&[(503, unavailable), (200, &known)]);
    let output = host.run("run start g");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!text(&output.stdout).contains("started before"), "{output:?}");
    assert!(text(&output.stderr).contains("the database is away\nrepeating"), "{output:?}");
    let requests = host.requests();
    assert_eq!(requests[0], requests[1]);
    assert!(requests[0].contains("cli-"), "{requests:?}");

    let host = Canned::new(&[(200, &known)]);
    let output = host.run("run start g --idempotency-key mine");
    assert!(text(&output.stdout).contains("started before"), "{output:?}");
    assert!(host.requests()[0].contains(r#""idempotency_key":"mine""#));
}

#[test]
fn watch_waits_for_a_restarted_host() {
    let (running, ended) = (run_json("RUNNING", 3), run_json("SUCCESS", 4));
    let first = Canned::new(&[(200, &live(&[&running]))]);
    let url = first.url.clone();
    let address = url.trim_start_matches("http://").to_owned();
    let watch = thread::spawn(move || exosphere(&format!("--host {url} run watch {RUN}")));
    first.requests();
    // For a moment nothing listens; then the host listens again at its old address.
    thread::sleep(std::time::Duration::from_millis(700));
    let listener = TcpListener::bind(address).unwrap();
    serve(&listener, 200, &live(&[&ended]));
    serve(&listener, 200, &ended);
    // It asks for the result, too, which it goes without.
    drop(listener);
    let output = watch.join().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stderr).contains("the host is unreachable"), "{output:?}");
    assert!(text(&output.stdout).contains("SUCCESS"), "{output:?}");
}

#[test]
fn uploads_are_sent_unchanged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("greet.wasm");
    fs::write(&file, "\0asm...").unwrap();
    let plugin = r#"{"name":"greet","version":"","digest":"ab","size":7,"uploaded_at":0,
        "nodes":[{"name":"hello","description":"Says hello.","inputs":{},"outputs":{},"secrets":[]}],
        "compile_ms":3,"imports":["exosphere:node/log@0.1.0"]}"#;
    let host = Canned::new(&[(201, plugin)]);
    let output = host.run(&format!("plugin push {} --version 1.0", file.display()));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(text(&output.stdout).contains("hello  -        Says hello."), "{output:?}");
    let request = "POST /v1/namespaces/default/plugins?name=greet&version=1.0 \0asm...";
    assert_eq!(host.requests(), [request]);
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let rows = r#"{"name":"n","digest":"d","size":1,"uploaded_at":0},"#.repeat(20_000);
    let body = format!(r#"{{"plugins":[{}]}}"#, rows.trim_end_matches(','));
    let host = Canned::new(&[(200, &body)]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_exosphere"))
        .args(["--host", &host.url, "plugin", "list"])
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    // A command that prints piece by piece ends with the first one, and says nothing either.
    let run = "0195b7f0-0000-7000-8000-000000000001";
    let attempt = r#"{"path":"a","attempt":1,"ended_at":5,"outcome":"SUCCESS",
        "logs":[{"level":"info","at":5,"message":"hi"}]}"#;
    let page = |next: &str| format!(r#"{{"attempts":[{attempt}]{next}}}"#);
    let host = Canned::new(&[(200, &page(r#","next":"5.1.1""#)), (200, &page(""))]);
    let mut child = Command::new(env!("CARGO_BIN_EXE_exosphere"))
        .args(["--host", &host.url, "run", "logs", run])
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
}

const BULK: &str = "0195b7f0-0000-7000-8000-00000000b01c";

/// Returns a bulk operation as a host answers it.
fn bulk_json(status: &str, done: u32, failed: u32) -> String {
    let ended_at = if status == "RUNNING" { "null" } else { "1500" };
    format!(
        r#"{{"bulk":"{BULK}","action":"redrive","filter":{{"graph":"words","later":[1]}},
        "reason":"fixed","status":"{status}","frozen_at":0,"ended_at":{ended_at},
        "expected":{{"runs":9,"exact":true}},"selected":{},"done":{done},"skipped":0,
        "failed":{failed},"more":1}}"#,
        done + failed
    )
}

#[test]
fn a_watched_operation_exits_by_its_status() {
    for (status, failed, code) in
        [("SUCCESS", 0, 0), ("FAILED", 2, 4), ("CANCELLED", 0, 5), ("ABANDONED", 0, 1)]
    {
        let running = bulk_json("RUNNING", 3, 0);
        let end = bulk_json(status, 7, failed);
        let host = Canned::new(&[(200, &running), (200, &running), (200, &end)]);
        let output = host.run(&format!("bulk watch {}", &BULK[..13]));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let shown = text(&output.stdout);
        assert!(shown.contains(status) && shown.contains("reason: fixed"), "{shown}");
        assert!(shown.contains("runs with graph=words later=1"), "a newer host's filter: {shown}");
        assert!(text(&output.stderr).contains("3/9 runs: 3 done, 0 skipped, 0 failed"));
        // The first answer tells the whole id.
        let whole = format!("GET /v1/namespaces/default/bulk/{BULK}");
        let prefix = format!("GET /v1/namespaces/default/bulk/{}", BULK[..13].replace('-', ""));
        assert_eq!(host.requests(), [prefix, whole.clone(), whole]);
    }
}

#[test]
fn a_confirmed_operation_is_one_request() {
    let host = Canned::new(&[(202, &bulk_json("RUNNING", 0, 0))]);
    let output = host.run("bulk redrive --graph words --status failed --reason fixed --yes");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let shown = text(&output.stdout);
    assert!(shown.contains("0/9") && shown.contains(&format!("bulk watch {BULK}")), "{shown}");
    let filter = r#"{"status":["FAILED"],"graph":"words"}"#;
    let rest = r#""reason":"fixed","dry_run":false}"#;
    let body = format!(r#"{{"action":"redrive","filter":{filter},{rest}"#);
    assert_eq!(host.requests(), [format!("POST /v1/namespaces/default/bulk {body}")]);
}

#[test]
fn a_question_needs_a_terminal() {
    let preview =
        r#"{"action":"delete","filter":{"graph":"w"},"expected":{"runs":344,"exact":false}}"#;
    let host = Canned::new(&[(200, preview)]);
    let output = host.run("bulk delete --graph w");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let shown = text(&output.stderr);
    assert!(shown.contains("delete at least 344 runs with graph=w"), "{shown}");
    let requests = host.requests();
    assert!(requests.len() == 1 && requests[0].contains(r#""dry_run":true"#), "{requests:?}");
    assert_eq!(exosphere("bulk delete --yes").status.code(), Some(2), "there is no condition");
}
