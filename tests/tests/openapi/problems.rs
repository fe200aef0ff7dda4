//! The problems: for each operation, each kind that it documents, by a request that is the happy
//! one with one fault.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, component};
use serde_json::{Value, json};

use crate::document::{Document, Operation, ROLES};
use crate::happy::{ARGUMENTS, NAMESPACE, World, bulk, one_node, requests};
use crate::sent::{Answer, Sent};

/// Kinds that a single request cannot provoke, with the tests that show them.
const ELSEWHERE: [(&str, &str); 6] = [
    ("full", "a_full_host_still_answers_health in robustness"),
    ("internal", "internal_errors_name_their_request in manners"),
    ("unavailable", "the tests that stop a database, in hosts and disk_full"),
    ("too-slow", "excess_and_slow_uploads_are_rejected in admission"),
    ("too-many-uploads", "excess_and_slow_uploads_are_rejected in admission"),
    ("compiler-killed", "compiler_process in host/sandbox"),
];

/// Operations whose `conflict` needs more than a request, with its cause.
const RACES: [(&str, &str); 6] = [
    ("createKey", "the database has as many keys as it may have"),
    ("revokeKey", "the key is the last one that can create keys, in access of the store"),
    ("startRun", "the graph changes during each of several tries"),
    ("startBulk", "many operations are not over, in the suite of the store"),
    ("showStateInputs", "a unite waits for its members"),
    ("removeSecret", "a node declares the secret, in secrets"),
];

/// Operations that succeed for an object which does not exist: they make it, or show its defaults.
const NEED_NO_OBJECT: [&str; 10] = [
    "applyGraph",
    "validateGraph",
    "setSecret",
    "pushPlugin",
    "checkPlugin",
    "setNamespace",
    "showGrants",
    "setGrants",
    "removeGrants",
    "setQuotas",
];

/// The number of requests after which a key with one request a second is refused in any case.
const MAX_BURST: usize = 10;

/// Returns another address of the loopback each time: wrong keys from one address are answered more
/// slowly each time.
fn next_address() -> Ipv4Addr {
    static NEXT: AtomicU32 = AtomicU32::new(2);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(127, 0, 0, 0)) + NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Sends requests with the fault of a kind, and returns the answers. Returns nothing if the kind
/// needs more than a fault.
fn provoke(
    kind: &str,
    operation: &Operation,
    happy: Sent,
    world: &World<'_>,
) -> Result<Vec<Answer>> {
    let host = world.host;
    let faulty = match kind {
        "bad-path" => bad_path(operation, happy),
        "bad-query" => Sent { query: format!("{}&unknown=1", happy.query), ..happy },
        "no-key" => happy.key(""),
        "wrong-key" => happy.key("exo_mistyped").from(next_address()),
        "forbidden" => {
            let keys = forbidden_keys(operation);
            let keys =
                keys.iter().map(|request| host.new_key(request)).collect::<Result<Vec<_>>>()?;
            let sent = keys.into_iter().map(|key| happy.clone().key(key).answer(host));
            return sent.collect();
        }
        "too-many-requests" => return Ok(vec![too_many_requests(&happy, world)?]),
        "quota-exceeded" => return Ok(vec![beyond_quota(&happy, host)?]),
        "bad-host" => happy.header("host", "a b"),
        "other-site" => happy.header("origin", "https://other.example"),
        "bad-header" if ["startRun", "startBulk", "createKey"].contains(&operation.id.as_str()) => {
            happy.header("idempotency-key", "")
        }
        "bad-header" => happy.header("if-match", "unquoted"),
        "changed" => happy.header("if-match", format!("\"{}\"", "0".repeat(64))),
        "bad-json" => happy.body("[]"),
        "invalid" if operation.id == "pushPlugin" => {
            Sent { query: format!("name=a&version={}", "v".repeat(65)), ..happy }
        }
        "invalid" => happy.body(r#"{"a": 1e999}"#),
        // A map takes much more memory than its text.
        "too-many-values" => happy.body(format!("{{\"a\": [{}0]}}", "{\"\":0},".repeat(6_000))),
        "plugin-refused" => happy.body("x"),
        "key-reused" if operation.id == "startBulk" => {
            let keyed = |sent: Sent| sent.header("idempotency-key", "used");
            keyed(happy.clone()).to(host)?;
            keyed(happy).json(&json!({"action": "delete", "filter": {"graph": "wait"}}))
        }
        "key-reused" => {
            let first = Sent::new("POST", &happy.path).json(&json!({"idempotency_key": "used"}));
            first.to(host)?;
            happy.json(&json!({"idempotency_key": "used", "delay_ms": 1}))
        }
        "conflict" => conflict(operation, world)?,
        "not-found" if operation.id == "listChanges" => {
            Sent { query: "namespace=absent".to_owned(), ..happy }
        }
        "not-found" => {
            return not_found(operation, &happy, host)?.iter().map(|it| it.answer(host)).collect();
        }
        "too-large" => {
            return Ok(vec![happy.raw_answer(host, "Content-Length: 1073741824", b"")?]);
        }
        "encoded-body" => happy.header("content-encoding", "gzip"),
        "broken-body" => {
            let headers = "Transfer-Encoding: chunked";
            return Ok(vec![happy.raw_answer(host, headers, b"no length\r\n")?]);
        }
        _ => return Ok(Vec::new()),
    };
    Ok(vec![faulty.answer(host)?])
}

/// Encodes the namespace, which is refused, or else spoils the last part of the path.
fn bad_path(operation: &Operation, happy: Sent) -> Sent {
    let place = operation.path.split('/').position(|part| part == "{namespace}");
    let mut parts: Vec<_> = happy.path.split('/').collect();
    let place = place.unwrap_or(parts.len() - 1);
    parts[place] = if operation.path.contains("{namespace}") { "%64efault" } else { "%FF" };
    Sent { path: parts.join("/"), ..happy }
}

/// Returns the requests for keys to which an operation is forbidden: those of lower roles, and those
/// of one namespace if it needs one of all.
fn forbidden_keys(operation: &Operation) -> Vec<Value> {
    let mut keys = Vec::new();
    if operation.role != ROLES[0] {
        let lower = ROLES.iter().take_while(|role| **role != operation.role);
        keys.extend(lower.map(|role| json!({"label": "low", "role": role})));
    }
    if operation.all_namespaces {
        keys.push(
            json!({"label": "own", "role": operation.role, "namespaces": ["default", "other"]}),
        );
    }
    keys
}

/// Sends a request more often than its key allows, and returns the first refusal.
fn too_many_requests(happy: &Sent, world: &World<'_>) -> Result<Answer> {
    let sent = happy.clone().key(world.slow_key.as_str());
    for _ in 0..MAX_BURST {
        let answer = sent.answer(world.host)?;
        if answer.status == 429 {
            return Ok(answer);
        }
    }
    bail!("{MAX_BURST} requests in a row were taken from a key with one request a second")
}

/// Sends a request when every quota is zero.
fn beyond_quota(happy: &Sent, host: &Host) -> Result<Answer> {
    let quotas = |quotas: Value| {
        host.send("PUT", "//v1/operator/namespaces/default/quotas", &json!({"quotas": quotas}))
    };
    quotas(json!({"graphs": 0, "revisions": 0, "plugins": 0, "plugin_bytes": 0}))?;
    let answer = happy.answer(host);
    quotas(json!({}))?;
    answer
}

/// Returns a request for each object in the path, with one that does not exist, and one with a key
/// of another namespace, to which this one does not exist.
fn not_found(operation: &Operation, happy: &Sent, host: &Host) -> Result<Vec<Sent>> {
    let templates: Vec<_> = operation.path.split('/').collect();
    let spoil = |place: usize| {
        let mut parts: Vec<_> = happy.path.split('/').collect();
        parts[place] = match templates[place] {
            "{run}" | "{bulk}" => "00000000-0000-7000-8000-000000000000",
            "{revision}" => "999999999",
            "{key}" => "000000000000",
            _ => "absent",
        };
        Sent { path: parts.join("/"), ..happy.clone() }
    };
    let is_namespace = |place: &usize| templates[*place] == "{namespace}";
    let named = (0..templates.len()).filter(|place| templates[*place].starts_with('{'));
    let (namespace, objects): (Vec<_>, Vec<_>) = named.partition(is_namespace);
    let places = if objects.is_empty() { namespace } else { objects };
    let mut all = Vec::new();
    if !NEED_NO_OBJECT.contains(&operation.id.as_str()) {
        all.extend(places.into_iter().map(spoil));
    }
    if operation.path.contains("{namespace}") {
        let of_another =
            json!({"label": "other", "role": "admin", "namespaces": ["another-namespace"]});
        all.push(happy.clone().key(host.new_key(&of_another)?));
    }
    Ok(all)
}

/// Applies a graph whose first revision names a plugin that has been removed.
fn outdate(host: &Host, name: &str) -> Result<()> {
    host.upload("removed", component("text")?)?;
    host.apply(
        name,
        &json!({"nodes": [{
            "node_name": "split", "plugin": "removed", "identifier": "only",
            "inputs": {"text": "a", "chunks": 1}, "next_nodes": [],
        }]}),
    )?;
    host.apply(name, &one_node("echo", &json!({"value": 1})))?;
    let removed = Sent::new("DELETE", format!("{NAMESPACE}/plugins/removed")).answer(host)?;
    ensure!(removed.status == 200, "{removed:?}");
    Ok(())
}

/// Returns a request that the status of its object does not allow.
fn conflict(operation: &Operation, world: &World<'_>) -> Result<Sent> {
    let path = match operation.id.as_str() {
        "deleteGraph" => "/graphs/echo".to_owned(),
        "removePlugin" => "/plugins/lab".to_owned(),
        // The first digits of every id are those of the same time.
        "showRun" => format!("/runs/{}", &world.succeeded.id[..4]),
        "whyRun" => format!("/runs/{}/why", &world.succeeded.id[..4]),
        "followRun" => format!("/runs/{}/live", &world.succeeded.id[..4]),
        // Two operations, whose first digits are those of the same time.
        "showBulk" | "cancelBulk" => {
            bulk(world)?;
            let (_, tail) = operation.path.split_once("{bulk}").context("not of an operation")?;
            format!("/bulk/{}{tail}", &bulk(world)?[..4])
        }
        "rollBackGraph" => {
            outdate(world.host, "outdated")?;
            let path = format!("{NAMESPACE}/graphs/outdated/rollback");
            return Ok(Sent::new("POST", path).json(&json!({"revision": 1})));
        }
        "deleteRun" => format!("/runs/{}", world.host.run("wait", &json!({}), &json!({}))?),
        _ => {
            let tail = operation.path.split_once("{run}").map(|(_, tail)| tail);
            let tail = tail.context("not of a run")?;
            let tail = tail.replace("{state}", &world.succeeded.state);
            format!("/runs/{}{tail}", world.succeeded.id)
        }
    };
    Ok(Sent::new(&operation.method, format!("{NAMESPACE}{path}")))
}

#[test]
fn every_documented_problem_is_provoked() -> Result<()> {
    on_both("openapi_problems", &ARGUMENTS, |host| {
        let (document, world) = (Document::of(host)?, World::of(host)?);
        for operation in document.operations()? {
            for kind in operation.problems() {
                let is_race = kind == "conflict"
                    && RACES.iter().any(|(operation_id, _)| *operation_id == operation.id);
                if is_race || ELSEWHERE.iter().any(|(other, _)| *other == kind) {
                    continue;
                }
                let case = format!("{}: {kind}", operation.id);
                let happy = requests(&operation.id, &world).with_context(|| case.clone())?;
                let (_, mut happy) = happy.into_iter().next().context("no request")?;
                if operation.takes_upload && kind != "quota-exceeded" {
                    // A refused upload may be unread, which a client that still sends sees as a
                    // broken connection.
                    happy = happy.body("x");
                }
                let answers = provoke(&kind, &operation, happy, &world);
                let answers = answers.with_context(|| case.clone())?;
                ensure!(!answers.is_empty(), "{case}: no case is known: add one here");
                for answer in answers {
                    let found: Value = answer.json().with_context(|| case.clone())?;
                    ensure!(found["type"] == format!("/problems/{kind}"), "{case}: {found:#}");
                    document.check(&operation, &answer)?;
                }
            }
        }
        Ok(())
    })
}
