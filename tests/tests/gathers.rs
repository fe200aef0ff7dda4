//! Gathers keep only the fields that they reference, on both databases: other fields of an output
//! cost no memory.

use anyhow::{Context, Result, ensure};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, both_databases};
use serde_json::{Value, json};

/// Runs a test with the plugin lab on both databases.
fn on_both(name: &str, test: impl Fn(&Host) -> Result<()>) -> Result<()> {
    both_databases::on_both(name, &[], |host| {
        host.push("lab")?;
        test(host)
    })
}

/// Returns a list of numbers of about `bytes` bytes of text, which takes 24 times the memory.
fn rows(bytes: usize) -> Value {
    Value::Array(vec![json!(1); bytes / 2])
}

/// Returns a graph of branches whose outputs each have a small field `i` and a large one `value`.
/// The unite's input from them is `values`.
fn graph(branches: u32, neighbour: &Value, values: &Value, limits: &Value) -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "split", "inputs": {"n": branches}, "next_nodes": ["work"]},
        {"node_name": "fan", "identifier": "work", "inputs": {"n": 1, "value": neighbour},
         "next_nodes": ["merge"]},
        {"node_name": "collect", "identifier": "merge", "inputs": {"values": values},
         "unites": {"identifier": "split"}, "next_nodes": [], "limits": limits},
    ]})
}

fn host_limits(folder: &std::path::Path, arguments: &[&str]) -> Result<Host> {
    let more = ["--limit", "timeout_ms=600s", "--limit", "cpu_ms=600s", "--slots", "2"];
    let host = Host::start_with(folder, &[arguments, &more].concat(), |_| ())?;
    host.push("lab")?;
    Ok(host)
}

/// Forty branches of 1 MB of text each are 960 MB of values. A gather of a small field beside them
/// takes almost no memory.
#[test]
fn gathers_ignore_unreferenced_fields() -> Result<()> {
    let url = Postgres::shared()?.create_database("gathers_large")?;
    for arguments in [vec![], vec!["--database", url.as_str()]] {
        let folder = tempfile::tempdir()?;
        let host = host_limits(folder.path(), &arguments)?;
        let fields =
            json!({"small": "${{ work.outputs.i }}", "none": "${{ work.outputs.value.3 }}"});
        let graph = graph(40, &rows(1_000_000), &json!(["x", fields]), &json!({}));
        host.apply("g", &graph)?;
        let run = host.run("g", &json!({}), &json!({}))?;
        let ended = host.wait_for(&run)?;
        ensure!(ended["status"] == "SUCCESS", "{arguments:?}: {ended:#}");
        let states = host.states(&run, "merge")?;
        ensure!(states[0]["attempt"] == 1, "{states:#?}");
        let taken = &states[0]["outputs"][0]["values"][1];
        let expected = json!({"small": vec![0; 40], "none": vec![1; 40]});
        ensure!(*taken == expected, "{taken}");
        let max = ProcessStats(host.pid()).memory_kb("VmHWM")? / 1024;
        println!("{arguments:?}: {max} MB");
        ensure!(max < 600, "{arguments:?}: the host took {max} MB");
    }
    Ok(())
}

#[test]
fn single_references_read_only_their_field() -> Result<()> {
    on_both("gathers_single", |host| {
        let nodes = json!([
            {"node_name": "fan", "identifier": "a", "inputs": {"n": 1, "value": rows(400_000)},
             "next_nodes": ["b"]},
            {"node_name": "echo", "identifier": "b", "inputs": {"value": "${{ a.outputs.i }}"},
             "next_nodes": [], "limits": {"json_bytes": 1 << 20}},
        ]);
        let ended = host.result_of("g", &json!({ "nodes": nodes }), &json!({}))?;
        ensure!(ended["status"] == "SUCCESS", "{ended:#}");
        let run = ended["run"].as_str().context("no id")?;
        ensure!(host.output(run, "b")? == json!({"value": 0}));
        Ok(())
    })
}

/// A gather that is too large is not retried, since its inputs cannot change.
#[test]
fn an_oversized_gather_is_not_retried() -> Result<()> {
    on_both("gathers_once", |host| {
        let limits = [
            ("json_bytes", 1 << 20, "${{ work.outputs }}"),
            ("input_bytes", 1000, "${{ work.outputs.value }}"),
        ];
        for (limit, max, named) in limits {
            let graph = graph(4, &rows(40_000), &json!([named]), &json!({limit: max}));
            let ended = host.result_of("g", &graph, &json!({}))?;
            ensure!(ended["status"] == "FAILED" && ended["counts"]["retries"] == 0, "{ended:#}");
            let failure = &ended["failures"][0];
            ensure!(failure["attempt"] == 1, "{ended:#}");
            ensure!(failure["failure"]["details"]["limit"] == limit, "{ended:#}");
        }
        Ok(())
    })
}

/// Outputs of several pages, complete and in order, with a failed branch between.
#[test]
fn gather_pages_keep_their_order() -> Result<()> {
    on_both("gathers_pages", |host| {
        let text = "x".repeat(700_000);
        let graph = json!({"nodes": [
            {"node_name": "fan", "identifier": "split", "inputs": {"n": 30, "value": text}, "next_nodes": ["work"]},
            {"node_name": "fail_when", "identifier": "work",
             "inputs": {"value": "${{ split.outputs.i }}", "equals": 17}, "next_nodes": ["big"]},
            {"node_name": "fan", "identifier": "big",
             "inputs": {"n": 2, "value": {"n": "${{ work.outputs.value }}", "text": "${{ split.outputs.value }}"}},
             "next_nodes": ["merge"]},
            {"node_name": "collect", "identifier": "merge",
             "inputs": {"values": ["${{ big.outputs.value.n }}", "${{ split.outputs.i }}"]},
             "unites": {"identifier": "split", "strategy": "ALL_DONE"}, "next_nodes": []},
        ]});
        let ended = host.result_of("g", &graph, &json!({}))?;
        let run = ended["run"].as_str().context("no id")?;
        let taken = host.output(run, "merge")?;
        let entries = |n: u32| if n == 17 { vec![Value::Null] } else { vec![json!(n), json!(n)] };
        let large: Vec<Value> = (0..30).flat_map(entries).collect();
        let split: Vec<u32> = (0..30).collect();
        ensure!(taken == json!({"values": [large, split]}), "{taken}");
        Ok(())
    })
}

/// Reading is billed: a gather of several pages ends at the node's deadline, before the node has
/// begun.
#[test]
fn reading_a_gather_ends_at_the_deadline() -> Result<()> {
    on_both("gathers_deadline", |host| {
        let text = json!("x".repeat(1 << 20));
        let mut graph = graph(24, &text, &json!(["${{ work.outputs.i }}"]), &json!({}));
        let merge = &mut graph["nodes"][2];
        merge["timeout_ms"] = json!(1);
        merge["retry_policy"] = json!({"max_retries": 0});
        let ended = host.result_of("g", &graph, &json!({}))?;
        ensure!(ended["failures"][0]["failure"]["kind"] == "timeout", "{ended:#}");
        let run = ended["run"].as_str().context("no id")?;
        let states = host.states(run, "merge")?;
        ensure!(states[0]["usage"] == Value::Null, "the node began: {states:#?}");
        Ok(())
    })
}
