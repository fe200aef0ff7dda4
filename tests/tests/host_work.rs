//! The host's own work for callers and guests: checks of schemas, redaction and descriptions. Each
//! is bounded, billed and cancelled, and does not delay honest runs of another namespace.
//!
//! Not here: JSON, batches, large runs and connections.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::guest::{self, Changes};
use exosphere_tests::honest_traffic::{Bounds, HonestTraffic, alone, cancel_time, sigterm_time};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::tenant::Tenant;
use exosphere_tests::{Host, good, path_of, problem};
use serde_json::{Map, Value, json};

/// The `execute` of a guest that returns 20,000 times `{}`.
const MANY_OUTPUTS: &str = r#"
(func (export "execute") (param i32 i32 i32 i32) (result i32)
  (local $at i32) (local $base i32)
  (local.set $base (i32.mul (memory.grow (i32.const 3)) (i32.const 65536)))
  (loop $next
    (i32.store (i32.add (local.get $base) (i32.mul (local.get $at) (i32.const 8))) (i32.const 16))
    (i32.store offset=4 (i32.add (local.get $base) (i32.mul (local.get $at) (i32.const 8))) (i32.const 2))
    (local.set $at (i32.add (local.get $at) (i32.const 1)))
    (br_if $next (i32.lt_u (local.get $at) (i32.const 20000))))
  (i32.store (i32.const 144) (local.get $base))
  (i32.store (i32.const 148) (i32.const 20000))
  (i32.const 128))"#;

/// The `execute` of a guest with two nodes: `many` returns 200 outputs, and `line` logs a
/// little and returns one output.
const MANY_AND_LINE: &str = r#"
(data (i32.const 4096) "an honest line of a log, in which there is no secret at all")
(data (i32.const 8192) "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
(func (export "execute") (param $node i32) (param i32 i32 i32) (result i32)
  (local $at i32) (local $base i32)
  (if (i32.eq (i32.load8_u (local.get $node)) (i32.const 109))
    (then
      (local.set $base (i32.mul (memory.grow (i32.const 1)) (i32.const 65536)))
      (loop $next
        (i32.store (i32.add (local.get $base) (i32.mul (local.get $at) (i32.const 8))) (i32.const 16))
        (i32.store offset=4 (i32.add (local.get $base) (i32.mul (local.get $at) (i32.const 8))) (i32.const 2))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (br_if $next (i32.lt_u (local.get $at) (i32.const 200))))
      (i32.store (i32.const 144) (local.get $base))
      (i32.store (i32.const 148) (i32.const 200))
      (return (i32.const 128))))
  (call $write (i32.const 1) (i32.const 4096) (i32.const 59))
  (call $write (i32.const 1) (i32.const 8192) (i32.const 64))
  (call $return (i32.const 16) (i32.const 2)))"#;

/// Returns definitions of `levels` levels, each of which applies the next one `ways` times.
fn nested_definitions(levels: usize, ways: usize) -> Value {
    let mut defs = Map::new();
    for level in 0..levels {
        let next = json!({"$ref": format!("#/$defs/{}", level + 1)});
        defs.insert(level.to_string(), json!({"allOf": vec![next; ways]}));
    }
    defs.insert(levels.to_string(), json!(true));
    Value::Object(defs)
}

/// Returns a schema of objects that is nearly as expensive for `{}` as admission allows.
fn heaviest_schema() -> Value {
    let first = json!({"$ref": "#/$defs/0"});
    json!({"type": "object", "allOf": [first, first], "$defs": nested_definitions(7, 4)})
}

/// Returns a schema of inputs `a`, `b` and `c`, each equally expensive.
fn heaviest_inputs() -> Value {
    let costly = json!({"allOf": [{"$ref": "#/$defs/0"}, {"$ref": "#/$defs/0"}]});
    json!({"type": "object", "properties": {"a": costly, "b": costly, "c": costly}, "$defs": nested_definitions(7, 4)})
}

fn node(name: &str, inputs: &Value, outputs: &Value) -> Value {
    json!({"name": name, "description": "A trial.", "inputs": inputs, "outputs": outputs})
}

fn component_with_nodes(functions: &str, nodes: &Value) -> Result<Vec<u8>> {
    let description = json!({"nodes": nodes}).to_string();
    let description = Some(description.as_bytes());
    guest::component(&Changes { functions, description, ..Changes::default() })
}

/// Returns a graph of one node, whose attempts have a second of CPU time.
fn one_node_graph(node: &str) -> Value {
    json!({
        "nodes": [{"node_name": node, "identifier": "only", "inputs": {}, "next_nodes": []}],
        "retry_policy": {"max_retries": 0},
        "limits": {"cpu_ms": 1000},
    })
}

/// Returns a graph of one node whose checks may take seconds.
fn graph_with_long_checks(node: &str) -> Value {
    let mut graph = one_node_graph(node);
    graph["limits"]["cpu_ms"] = json!(5000);
    graph
}

fn upload(tenant: &Tenant<'_>, name: &str, bytes: Vec<u8>) -> Result<Value> {
    let path = tenant.path(&format!("/plugins?name={name}&version=test"));
    good(tenant.host.request("POST", &path)?.body(bytes).send()?)
}

/// Arguments that raise the attempt timeout, so that a busy machine does not exceed it.
const LONG_TIMEOUT: [&str; 2] = ["--limit", "timeout_ms=300s"];

/// Runs a test on a host on each kind of database.
fn on_both(name: &str, test: impl Fn(Host) -> Result<()>) -> Result<()> {
    let _alone = alone();
    let folder = tempfile::tempdir()?;
    test(Host::start_with(folder.path(), &LONG_TIMEOUT, |_| ())?).context("on SQLite")?;
    let url = Postgres::shared()?.create_database(name)?;
    let folder = tempfile::tempdir()?;
    let arguments = [&LONG_TIMEOUT[..], &["--database", &url]].concat();
    test(Host::start_with(folder.path(), &arguments, |_| ())?).context("on Postgres")
}

fn hostile_tenant(host: &Host) -> Tenant<'_> {
    Tenant { host, name: "evil" }
}

fn push_heavy_outputs(hostile: &Tenant<'_>) -> Result<()> {
    let any = json!({"type": "object"});
    upload(
        hostile,
        "heavy",
        component_with_nodes(MANY_OUTPUTS, &json!([node("attack", &any, &heaviest_schema())]))?,
    )?;
    Ok(())
}

#[test]
fn output_checks_are_billed_to_attempts() -> Result<()> {
    on_both("heavy_outputs", |host| {
        let hostile = hostile_tenant(&host);
        push_heavy_outputs(&hostile)?;
        hostile.apply("heavy", &one_node_graph("attack"))?;
        let traffic = HonestTraffic::start(&host)?;
        let started = Instant::now();
        let runs: Vec<_> = (0..4).map(|_| hostile.begin("heavy")).collect::<Result<_>>()?;
        for run in runs {
            let found = hostile.result(&run)?;
            let failure = &found["failures"][0]["failure"];
            ensure!(failure["kind"] == "limit", "{found:#}");
            let message = failure["message"].as_str().unwrap_or_default();
            ensure!(message.contains("`cpu_ms`"), "{message}");
            ensure!(message.contains("checks of the outputs"), "{message}");
            let state = hostile.list(&run, "identifier=only")?.remove(0);
            let path = hostile.path(&format!("/runs/{run}/states/{}", path_of(&state)?));
            let state = host.get(&path)?;
            let used = state["usage"]["cpu_us"].as_u64();
            let used = used.with_context(|| format!("no usage in {state:#}"))?;
            ensure!((1_000_000..1_500_000).contains(&used), "{used} us");
        }
        let elapsed = started.elapsed();
        ensure!(elapsed < Duration::from_secs(240), "{elapsed:.1?}");
        traffic.finish()?.hold(Bounds::default())
    })
}

#[test]
fn a_cancel_ends_output_checks() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    let hostile = hostile_tenant(&host);
    push_heavy_outputs(&hostile)?;
    let graph = graph_with_long_checks("attack");
    let run = hostile.start("heavy", &graph)?;
    std::thread::sleep(Duration::from_millis(700));
    ensure!(hostile.run(&run)?["status"] == "RUNNING", "the checks have ended");
    cancel_time(&hostile, &run)?.hold()
}

#[test]
fn output_checks_end_at_the_deadline() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    let hostile = hostile_tenant(&host);
    push_heavy_outputs(&hostile)?;
    let mut graph = graph_with_long_checks("attack");
    graph["nodes"][0]["timeout_ms"] = json!(500);
    let run = hostile.start("heavy", &graph)?;
    let found = hostile.result(&run)?;
    ensure!(found["failures"][0]["failure"]["kind"] == "timeout", "{found:#}");
    Ok(())
}

/// Returns a graph whose second node takes a list that is quick to check and slow to measure.
fn graph_with_heavy_input(limits: &Value) -> Value {
    json!({
        "nodes": [
            {"node_name": "echo", "identifier": "first", "inputs": {"value": vec![0; 200_000]},
             "next_nodes": ["second"]},
            {"node_name": "attack", "identifier": "second", "limits": limits,
             "inputs": {"list": "${{ first.outputs.value }}"}, "next_nodes": []},
        ],
        "retry_policy": {"max_retries": 0},
    })
}

#[test]
fn input_checks_are_billed_to_attempts() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    host.push("lab")?;
    let any = json!({"type": "object"});
    let integers = json!({"items": {"type": "integer"}});
    let inputs = json!({
        "type": "object",
        "properties": {"other": {"$ref": "#/$defs/0"}, "list": integers},
        "$defs": nested_definitions(7, 4),
    });
    host.upload("heavy", component_with_nodes("", &json!([node("attack", &inputs, &any)]))?)?;
    let found =
        host.result_of("few", &graph_with_heavy_input(&json!({"cpu_ms": 1})), &json!({}))?;
    let failure = &found["failures"][0]["failure"];
    ensure!(failure["kind"] == "limit", "{found:#}");
    let message = failure["message"].as_str().unwrap_or_default();
    ensure!(message.contains("checks of the inputs"), "{message}");
    let found = host.result_of("enough", &graph_with_heavy_input(&json!({})), &json!({}))?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    let states = host.states(found["run"].as_str().context("no id")?, "second")?;
    let used = states[0]["usage"]["cpu_us"].as_u64().context("no usage")?;
    // The guest itself takes far less.
    ensure!(used > 3_000, "{used} us");
    Ok(())
}

/// Checks take turns: those of a small run need not wait for the end of large ones.
#[test]
fn output_checks_of_a_namespace_take_turns() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    let hostile = hostile_tenant(&host);
    push_heavy_outputs(&hostile)?;
    let any = json!({"type": "object"});
    upload(
        &hostile,
        "few",
        component_with_nodes(MANY_AND_LINE, &json!([node("many", &any, &heaviest_schema())]))?,
    )?;
    let heavy = graph_with_long_checks("attack");
    hostile.apply("heavy", &heavy)?;
    let few_checks = graph_with_long_checks("many");
    hostile.apply("few", &few_checks)?;
    let turns = std::thread::available_parallelism()?.get();
    let large = (0..turns).map(|_| hostile.begin("heavy")).collect::<Result<Vec<_>>>()?;
    let found = hostile.result(&hostile.begin("few")?)?;
    ensure!(found["status"] == "SUCCESS", "{found:#}");
    for run in large {
        ensure!(hostile.run(&run)?["status"] == "RUNNING", "the checks of {run} have ended");
    }
    Ok(())
}

#[test]
fn sigterm_ends_a_host_during_output_checks() -> Result<()> {
    let _alone = alone();
    let mut host = Host::start()?;
    {
        let hostile = hostile_tenant(&host);
        push_heavy_outputs(&hostile)?;
        hostile.apply("heavy", &one_node_graph("attack"))?;
        for _ in 0..4 {
            hostile.begin("heavy")?;
        }
    }
    std::thread::sleep(Duration::from_millis(300));
    let (elapsed, status) = sigterm_time(&mut host)?;
    ensure!(status.success(), "{status}");
    ensure!(elapsed < Duration::from_secs(20), "{elapsed:.1?}");
    Ok(())
}

#[test]
fn an_expensive_schema_is_rejected() -> Result<()> {
    let host = Host::start()?;
    let schema = json!({"type": "object", "$ref": "#/$defs/0", "$defs": nested_definitions(11, 4)});
    let any = json!({"type": "object"});
    let component = component_with_nodes("", &json!([node("attack", &any, &schema)]))?;
    let (status, problem) = problem(host.upload("heavy", component)?)?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("the smallest value"), "{problem}");
    ensure!(problem.to_string().contains("$.nodes[0].outputs"), "{problem}");
    Ok(())
}

#[test]
fn schema_compilation_of_an_upload_has_a_budget() -> Result<()> {
    let host = Host::start()?;
    let any = json!({"type": "object"});
    let described_with = |patterns: usize| -> Result<Vec<u8>> {
        let field = |at: usize| (format!("f{at}"), json!({"pattern": format!("^a{at}*$")}));
        let fields: Map<String, Value> = (0..patterns).map(field).collect();
        let schema = json!({"type": "object", "properties": fields});
        let nodes: Vec<Value> = (0..100).map(|at| node(&format!("n{at}"), &any, &schema)).collect();
        component_with_nodes("", &json!(nodes))
    };
    ensure!(host.upload("few", described_with(15)?)?.status() == 201);
    let started = Instant::now();
    let (status, problem) = problem(host.upload("many", described_with(40)?)?)?;
    let elapsed = started.elapsed();
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("too long to compile"), "{problem}");
    ensure!(elapsed < Duration::from_secs(20), "{elapsed:.1?}");
    Ok(())
}

/// Returns a graph of 400 nodes with three literal inputs each.
fn literals() -> Value {
    let node = |at: usize| {
        json!({
            "node_name": "attack",
            "identifier": format!("n{at}"),
            "inputs": {"a": at, "b": {}, "c": []},
            "next_nodes": if at < 399 { vec![format!("n{}", at + 1)] } else { Vec::new() },
        })
    };
    json!({"nodes": (0..400).map(node).collect::<Vec<_>>()})
}

#[test]
fn literal_checks_end_with_their_budget() -> Result<()> {
    on_both("heavy_inputs", |host| {
        let hostile = hostile_tenant(&host);
        let any = json!({"type": "object"});
        let component =
            component_with_nodes("", &json!([node("attack", &heaviest_inputs(), &any)]))?;
        upload(&hostile, "heavy", component)?;
        let traffic = HonestTraffic::start(&host)?;
        let path = hostile.path("/graphs/heavy/validate");
        let started = Instant::now();
        let short_timeout_client = host.client(Duration::from_millis(20))?;
        std::thread::scope(|scope| {
            let requests: Vec<_> =
                (0..3).map(|_| scope.spawn(|| host.refused("POST", &path, &literals()))).collect();
            for request in requests {
                let (status, problem) = request.join().unwrap()?;
                ensure!(status == 422, "{problem}");
                let errors = problem["errors"].to_string();
                ensure!(errors.contains("have used up their budget"), "{problem:#}");
                ensure!(errors.contains("$.nodes["), "{problem:#}");
            }
            anyhow::Ok(())
        })?;
        // Each would take half a second if it were not stopped.
        for _ in 0..20 {
            let url = format!("{}/v1/namespaces/evil/graphs/heavy/validate", host.url());
            // On a machine that stalls for as long as a check takes, the answer is in time.
            if let Ok(answer) = short_timeout_client.post(url).json(&literals()).send() {
                ensure!(answer.status() == 422, "{}", answer.status());
            }
        }
        let (status, _) = host.refused("POST", &path, &literals())?;
        ensure!(status == 422);
        let elapsed = started.elapsed();
        ensure!(elapsed < Duration::from_secs(15), "{elapsed:.1?}");
        traffic.finish()?.hold(Bounds::default())
    })
}

#[test]
fn start_inputs_have_a_check_budget() -> Result<()> {
    let host = Host::start()?;
    let any = json!({"type": "object"});
    let properties = json!({"list": {"items": {"$ref": "#/$defs/0"}}});
    let list =
        json!({"type": "object", "properties": properties, "$defs": nested_definitions(7, 4)});
    host.upload("heavy", component_with_nodes("", &json!([node("attack", &list, &any)]))?)?;
    host.apply("heavy", &one_node_graph("attack"))?;
    let start = json!({"inputs": {"list": vec![0; 500]}});
    let (status, problem) = host.refused("POST", "/graphs/heavy/runs", &start)?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("steps to check"), "{problem}");
    Ok(())
}

/// Each input is within the budget, and all together exceed it.
#[test]
fn start_inputs_share_one_check_budget() -> Result<()> {
    let host = Host::start()?;
    let any = json!({"type": "object"});
    let list = json!({"items": {"$ref": "#/$defs/0"}});
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let properties: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), list.clone())).collect();
    let schema =
        json!({"type": "object", "properties": properties, "$defs": nested_definitions(7, 4)});
    host.upload("heavy", component_with_nodes("", &json!([node("attack", &schema, &any)]))?)?;
    host.apply("heavy", &one_node_graph("attack"))?;
    let inputs: Map<_, _> =
        names.iter().map(|name| ((*name).to_owned(), json!(vec![0; 200]))).collect();
    let (status, problem) =
        host.refused("POST", "/graphs/heavy/runs", &json!({ "inputs": inputs }))?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("have used up their budget"), "{problem}");
    Ok(())
}

#[test]
fn redacting_large_secrets_is_bounded() -> Result<()> {
    let _alone = alone();
    let random: String = (0u32..65_000)
        .map(|n| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
        .collect();
    for secret in [random, "a".repeat(60_000), "ab".repeat(30_000)] {
        let host = Host::start()?;
        let hostile = hostile_tenant(&host);
        let any = json!({"type": "object"});
        let mut line = node("line", &any, &any);
        line["secrets"] = json!(["k"]);
        upload(
            &hostile,
            "lines",
            component_with_nodes(MANY_AND_LINE, &json!([node("many", &any, &any), line]))?,
        )?;
        host.send("PUT", "//v1/operator/namespaces/evil/grants/lines", &json!({"secrets": ["k"]}))?;
        let graph = json!({
            "nodes": [
                {"node_name": "many", "identifier": "fan", "inputs": {}, "next_nodes": ["line"]},
                {"node_name": "line", "identifier": "line", "inputs": {}, "next_nodes": []},
            ],
            "retry_policy": {"max_retries": 0},
            "secrets": {"k": secret},
        });
        let traffic = HonestTraffic::start(&host)?;
        let started = Instant::now();
        let run = hostile.start("lines", &graph)?;
        let found = hostile.result(&run)?;
        ensure!(found["status"] == "SUCCESS", "{found:#}");
        let elapsed = started.elapsed();
        ensure!(elapsed < Duration::from_secs(20), "{elapsed:.1?}");
        let report = traffic.finish()?;
        let growth_mib = report.memory_max.saturating_sub(report.memory_first) >> 20;
        ensure!(growth_mib < 200, "the memory grew by {growth_mib} MiB: {report}");
        report.hold(Bounds::default())?;
    }
    Ok(())
}

/// Returns a schema that takes nearly as much memory as a description may.
fn heavy_schema() -> Value {
    let list: Vec<_> = (0..280_000).map(|n| n % 10).collect();
    json!({"type": "object", "properties": {"a": {"default": list}}})
}

#[test]
fn validation_reads_named_nodes_once() -> Result<()> {
    on_both("heavy_descriptions", |host| {
        let hostile = hostile_tenant(&host);
        let any = json!({"type": "object"});
        let nodes = json!([node("attack", &heavy_schema(), &any), node("light", &any, &any)]);
        let component = component_with_nodes("", &nodes)?;
        for at in 0..12 {
            upload(&hostile, &format!("heavy{at}"), component.clone())?;
        }
        let traffic = HonestTraffic::start(&host)?;
        let graph = |node: &str| {
            json!({"nodes": [{"node_name": node, "plugin": "heavy7", "identifier": "only",
                              "inputs": {}, "next_nodes": []}]})
        };
        let path = hostile.path("/graphs/heavy/validate");
        std::thread::scope(|scope| {
            let requests: Vec<_> = (0..16)
                .map(|at| {
                    let graph = graph(if at % 2 == 0 { "light" } else { "attack" });
                    let (host, path) = (&host, &path);
                    scope.spawn(move || host.send("POST", path, &graph))
                })
                .collect();
            requests.into_iter().try_for_each(|request| request.join().unwrap().map(drop))
        })?;
        let report = traffic.finish()?;
        let growth_mib = report.memory_max.saturating_sub(report.memory_first) >> 20;
        ensure!(growth_mib < 300, "the memory grew by {growth_mib} MiB: {report}");
        report.hold(Bounds::default())
    })
}

/// The descriptions of all plugins together would exceed the limit; those of a few do not.
#[test]
fn descriptions_of_other_nodes_cost_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--limit", "json_bytes=33554432"], |_| ())?;
    let any = json!({"type": "object"});
    good(host.upload("plain", component_with_nodes("", &json!([node("plain", &any, &any)]))?)?)?;
    for name in ["a", "b", "c"] {
        let component = component_with_nodes("", &json!([node(name, &heavy_schema(), &any)]))?;
        good(host.upload(name, component)?)?;
    }
    let path = "/graphs/heavy/validate";
    for name in ["plain", "a"] {
        host.send("POST", path, &one_node_graph(name))?;
    }
    let node = |name: &str, next: &[&str]| {
        json!({"node_name": name, "identifier": name, "inputs": {},
               "next_nodes": next})
    };
    let all = json!({"nodes": [node("a", &["b"]), node("b", &["c"]), node("c", &[])]});
    let (status, problem) = host.refused("POST", path, &all)?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("the descriptions of the plugins"), "{problem}");
    Ok(())
}

#[test]
fn an_oversized_description_is_rejected() -> Result<()> {
    let host = Host::start()?;
    let any = json!({"type": "object"});
    let list: Vec<_> = (0..400_000).map(|n| n % 10).collect();
    let heavy = json!({"type": "object", "default": list});
    let component = component_with_nodes("", &json!([node("attack", &heavy, &any)]))?;
    let (status, problem) = problem(host.upload("heavy", component)?)?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("bytes of memory once it is read"), "{problem}");
    Ok(())
}

/// A short schema with many patterns takes much memory when compiled.
#[test]
fn schemas_above_the_memory_bound_are_rejected() -> Result<()> {
    let host = Host::start()?;
    let patterns: Vec<_> = (0..90).map(|n| json!({"pattern": format!("^{n}$")})).collect();
    let schema = json!({"type": "object", "properties": {"a": {"anyOf": patterns}}});
    let component = component_with_nodes("", &json!([node("attack", &schema, &schema)]))?;
    let (status, problem) = problem(host.upload("heavy", component)?)?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("the schemas of one node would take"), "{problem}");
    Ok(())
}

#[test]
fn a_misspelt_node_gets_a_suggestion() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let (status, problem) = host.refused("PUT", "/graphs/typo", &one_node_graph("ehco"))?;
    ensure!(status == 422, "{problem}");
    ensure!(problem.to_string().contains("echo"), "{problem}");
    Ok(())
}
