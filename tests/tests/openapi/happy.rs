//! The happy paths: for each operation, a request for each success that it documents.

use anyhow::{Context, Result, bail, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, component};
use serde_json::{Value, json};

use crate::document::Document;
use crate::sent::Sent;

/// Arguments of the host: little memory for JSON, so that a small body exceeds it.
pub const ARGUMENTS: [&str; 2] = ["--limit", "json_bytes=1048576"];

/// The place where all objects of these tests are.
pub const NAMESPACE: &str = "/v1/namespaces/default";

/// The path of the keys.
const KEYS: &str = "/v1/operator/keys";

/// A text in the inputs, the outputs and the store of the run that succeeded, and nowhere else.
pub const PAYLOAD: &str = "a-payload-7391";

/// A host with a plugin, graphs and runs that have ended.
pub struct World<'a> {
    pub host: &'a Host,
    pub succeeded: Run,
    pub failed: Run,
    /// A key that sends one request a second.
    pub slow_key: String,
}

/// A run and the path of its only state.
pub struct Run {
    pub id: String,
    pub state: String,
}

impl World<'_> {
    /// Fills a host.
    pub fn of(host: &Host) -> Result<World<'_>> {
        host.push("lab")?;
        for (name, inputs) in [
            ("echo", json!({"value": 1})),
            ("fail_when", json!({"value": 1, "equals": 1})),
            ("wait", json!({"value": 1, "ms": 60_000})),
        ] {
            host.apply(name, &one_node(name, &inputs))?;
        }
        let payload = json!({"value": PAYLOAD});
        let succeeded = host.run("echo", &payload, &json!({"k": PAYLOAD}))?;
        let slow_key = json!({"label": "slow", "role": "admin", "requests_per_second": 1});
        Ok(World {
            host,
            succeeded: ended(host, succeeded)?,
            failed: failing(host)?,
            slow_key: host.new_key(&slow_key)?,
        })
    }

    /// Starts a run that does not end by itself, and returns its path.
    fn running(&self) -> Result<String> {
        let run = self.host.run("wait", &json!({}), &json!({}))?;
        Ok(format!("{NAMESPACE}/runs/{run}"))
    }

    /// Starts a run that fails, and returns it.
    fn failing(&self) -> Result<Run> {
        failing(self.host)
    }
}

/// Returns a graph of one node, which is not retried.
pub fn one_node(node: &str, inputs: &Value) -> Value {
    let node = json!({"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []});
    json!({"nodes": [node], "retry_policy": {"max_retries": 0}})
}

/// Starts a run that fails, and returns it.
fn failing(host: &Host) -> Result<Run> {
    ended(host, host.run("fail_when", &json!({}), &json!({}))?)
}

/// Waits for the end of a run of one state.
fn ended(host: &Host, id: String) -> Result<Run> {
    host.wait_for(&id)?;
    let states = host.list(&id, "")?;
    let state = states.first().and_then(|state| state["path"].as_str().map(str::to_owned));
    Ok(Run { id, state: state.context("the run has a state")? })
}

/// Returns a request for each success of an operation, with its status.
pub fn requests(operation: &str, world: &World<'_>) -> Result<Vec<(u16, Sent)>> {
    let get = |path: &str| Sent::new("GET", path);
    let own = |method: &str, path: &str| Sent::new(method, format!("{NAMESPACE}{path}"));
    let run = format!("/runs/{}", world.succeeded.id);
    let state = format!("{run}/states/{}", world.succeeded.state);
    let secret = "/graphs/echo/secrets/token";
    let graph = one_node("echo", &json!({"value": 2}));
    let settings = "/v1/operator/namespaces/default";
    let other = "/v1/operator/namespaces/other";
    let grants = format!("{settings}/grants/lab");
    let sent = match operation {
        "health" => get("/health"),
        "openapi" => get("/v1/openapi.json"),
        "reference" => get("/docs"),
        "listProblems" => get("/problems"),
        "showProblem" => get("/problems/conflict"),
        "startRun" => {
            let start = own("POST", "/graphs/echo/runs").query("wait_ms=10");
            let start = start.json(&json!({"idempotency_key": "happy", "inputs": {"value": [1]}}));
            return Ok(vec![(201, start.clone()), (200, start)]);
        }
        "followRuns" => own("GET", "/runs/live").query("graph=echo&limit=2&for_ms=0"),
        "followRun" => own("GET", &format!("{run}/live")).query("for_ms=0"),
        "listRuns" => own("GET", "/runs").query("graph=echo&status=SUCCESS&limit=1"),
        "showRun" => own("GET", &run),
        "cancelRun" => Sent::new("POST", format!("{}/cancel", world.running()?)),
        "pauseRun" => Sent::new("POST", format!("{}/pause", world.running()?)),
        "resumeRun" => {
            let run = world.running()?;
            Sent::new("POST", format!("{run}/pause")).to(world.host)?;
            Sent::new("POST", format!("{run}/resume"))
        }
        "redriveRun" => own("POST", &format!("/runs/{}/redrive", world.failing()?.id)),
        "startBulk" => {
            let body = json!({"action": "cancel", "filter": {"graph": "wait"}, "reason": "a test"});
            let start = own("POST", "/bulk").json(&body);
            let mut dry = body;
            dry["dry_run"] = json!(true);
            return Ok(vec![(202, start), (200, own("POST", "/bulk").json(&dry))]);
        }
        "listBulk" => own("GET", "/bulk").query("limit=1"),
        "showBulk" => own("GET", &format!("/bulk/{}", bulk(world)?)),
        "cancelBulk" => own("POST", &format!("/bulk/{}/cancel", bulk(world)?)),
        "showTimeline" => own("GET", &format!("{run}/timeline")).query("by=host&bins=10"),
        "listFailures" => own("GET", &format!("/runs/{}/failures", world.failed.id)),
        "showDistribution" => own("GET", &format!("{run}/nodes/only/distribution")),
        "compareRuns" => {
            own("GET", &format!("{run}/compare")).query(format!("with={}", world.failed.id))
        }
        "listStates" => own("GET", &format!("{run}/states")).query("identifier=only"),
        "showState" => own("GET", &format!("{run}/states/{}", world.succeeded.state)),
        "retryState" => {
            let Run { id, state } = world.failing()?;
            own("POST", &format!("/runs/{id}/states/{state}/retry"))
        }
        "listGraphs" => own("GET", "/graphs").query("limit=2"),
        "showGraph" => own("GET", "/graphs/echo"),
        "showGraphStats" => own("GET", "/graphs/echo/stats").query("bins=3"),
        "applyGraph" => own("PUT", "/graphs/another").json(&graph),
        "validateGraph" => own("POST", "/graphs/another/validate").json(&graph),
        "deleteGraph" => {
            world.host.apply("gone", &graph)?;
            own("DELETE", "/graphs/gone").query("with_runs=true")
        }
        "listRevisions" => own("GET", "/graphs/echo/revisions").query("limit=1"),
        "showRevision" => own("GET", "/graphs/echo/revisions/1"),
        "diffRevisions" => own("GET", "/graphs/echo/diff").query("from=1&to=1"),
        "rollBackGraph" => {
            for value in [1, 2] {
                world.host.apply("rolled", &one_node("echo", &json!({"value": value})))?;
            }
            own("POST", "/graphs/rolled/rollback").json(&json!({"revision": 1}))
        }
        "pauseGraph" => own("POST", "/graphs/wait/pause").json(&json!({"reason": "a test"})),
        "resumeGraph" => own("POST", "/graphs/wait/resume"),
        "deleteRun" => own("DELETE", &format!("/runs/{}", world.failing()?.id)),
        "showRunInputs" => own("GET", &format!("{run}/inputs")),
        "showRunResult" => own("GET", &format!("{run}/result")).query("limit=1"),
        "showStateInputs" => own("GET", &format!("{state}/inputs")),
        "listStateOutputs" => own("GET", &format!("{state}/outputs")).query("limit=1"),
        "listSecrets" => own("GET", "/secrets").query("limit=1"),
        "setSecret" => own("PUT", secret).json(&json!({"value": "open"})),
        "removeSecret" => {
            own("PUT", secret).json(&json!({"value": "open"})).to(world.host)?;
            own("DELETE", secret)
        }
        "listPlugins" => own("GET", "/plugins"),
        "pushPlugin" => {
            let push = own("POST", "/plugins").query("name=text").body(component("text")?);
            return Ok(vec![(201, push.clone()), (200, push)]);
        }
        "showPlugin" => own("GET", "/plugins/lab"),
        "removePlugin" => {
            world.host.upload("unused", component("text")?)?;
            own("DELETE", "/plugins/unused").query("unused=true")
        }
        "checkPlugin" => own("POST", "/plugins/check").query("name=a").body(component("text")?),
        "listHosts" => get("/v1/operator/hosts"),
        "listNamespaces" => get("/v1/operator/namespaces"),
        "showNamespace" => get(settings),
        "setNamespace" => Sent::new("PUT", settings).json(&json!({"limits": {"outputs": 9}})),
        "pauseNamespace" => {
            world.host.namespace("other", &json!({}))?;
            Sent::new("POST", format!("{other}/pause")).json(&json!({}))
        }
        "resumeNamespace" => {
            world.host.namespace("other", &json!({}))?;
            Sent::new("POST", format!("{other}/resume"))
        }
        "listGrants" => get(&format!("{settings}/grants")),
        "showGrants" => get(&grants),
        "setGrants" => Sent::new("PUT", &grants).json(&json!({"config": {"a": "b"}})),
        "removeGrants" => Sent::new("DELETE", &grants),
        "showQuotas" => get(&format!("{settings}/quotas")),
        "setQuotas" => {
            Sent::new("PUT", format!("{other}/quotas")).json(&json!({"quotas": {"graphs": 9}}))
        }
        "listKeys" => get(KEYS).query("limit=1"),
        "createKey" => {
            let create = Sent::new("POST", KEYS).json(&json!({"label": "a", "role": "viewer"}));
            return Ok(vec![(201, create)]);
        }
        "revokeKey" => {
            let key = world.host.new_key(&json!({"label": "revoked", "role": "viewer"}))?;
            let id = key.split('_').nth(1).context("a key has an id")?;
            Sent::new("DELETE", format!("{KEYS}/{id}"))
        }
        "listChanges" => get("/v1/operator/audit").query("limit=1"),
        other => bail!("no request is known for the operation {other}: add one here"),
    };
    Ok(vec![(200, sent)])
}

/// Begins a bulk operation without runs, and returns its id.
pub fn bulk(world: &World<'_>) -> Result<String> {
    let body = json!({"action": "redrive", "filter": {"graph": "echo"}});
    let begun = Sent::new("POST", format!("{NAMESPACE}/bulk")).json(&body).answer(world.host)?;
    let id = begun.json()?["bulk"].as_str().map(str::to_owned);
    id.with_context(|| format!("no operation has begun: {}", begun.text))
}

#[test]
fn every_operation_succeeds_as_documented() -> Result<()> {
    on_both("openapi_happy", &ARGUMENTS, |host| {
        let (document, world) = (Document::of(host)?, World::of(host)?);
        for operation in document.operations()? {
            let mut statuses = Vec::new();
            for (status, sent) in requests(&operation.id, &world)? {
                let answer = sent.answer(host)?;
                let text = &answer.text;
                ensure!(answer.status == status, "{}: {}: {text}", operation.id, answer.status);
                document.check(&operation, &answer)?;
                statuses.push(status);
            }
            statuses.sort_unstable();
            ensure!(statuses == operation.successes(), "{}: {statuses:?}", operation.id);
        }
        Ok(())
    })
}

#[test]
fn documented_pages_lead_to_each_other() -> Result<()> {
    let host = Host::start()?;
    let page = Sent::new("GET", "/docs").answer(&host)?.text;
    for link in page.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
        match link.strip_prefix('#') {
            Some(id) => ensure!(page.contains(&format!("id=\"{id}\"")), "{link} leads nowhere"),
            None => ensure!(Sent::new("GET", link).answer(&host)?.status == 200, "{link}"),
        }
    }
    let problem: Value = Sent::new("GET", "/v1/nowhere").answer(&host)?.json()?;
    let kind = problem["type"].as_str().context("a problem has a type")?;
    ensure!(Sent::new("GET", kind).answer(&host)?.status == 200, "{kind} is not a page");
    Ok(())
}
