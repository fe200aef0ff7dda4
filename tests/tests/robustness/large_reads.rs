//! Costly validations and large reads: bounded in memory, in turns, and in pages.

use std::io::Write;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::guest;
use exosphere_tests::honest_traffic::{Bounds, HEALTH_MAX, HonestTraffic, alone, slack};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::process_stats::ProcessStats;
use exosphere_tests::{Host, good};
use serde_json::{Value, json};

use crate::{address, connect};

/// Builds a plugin whose input `x` is costly to check: each level costs four times the one below.
fn costly_plugin(levels: usize) -> Result<Vec<u8>> {
    let mut schemas = serde_json::Map::new();
    for level in 0..levels {
        let below = json!({"$ref": format!("#/$defs/d{}", level + 1)});
        schemas.insert(format!("d{level}"), json!({"allOf": vec![below; 4]}));
    }
    schemas.insert(format!("d{levels}"), json!({"type": "integer"}));
    let properties = json!({"x": {"$ref": "#/$defs/d0"}});
    let inputs = json!({"type": "object", "$defs": schemas, "properties": properties});
    let outputs = json!({"type": "object"});
    let nodes = json!({"nodes": [{"name": "attack", "inputs": inputs, "outputs": outputs}]});
    let description = nodes.to_string();
    guest::component(&guest::Changes {
        description: Some(description.as_bytes()),
        ..guest::Changes::default()
    })
}

/// Returns a valid graph of many nodes with a literal input each: a tree, since a node has at most
/// 100 edges.
fn costly_graph(nodes: usize) -> Value {
    let node = |number: usize| {
        let (first, last) = (number * 50 + 1, (number * 50 + 51).min(nodes));
        let next: Vec<String> = (first..last).map(|next| format!("n{next}")).collect();
        json!({"node_name": "attack", "identifier": format!("n{number}"), "inputs": {"x": 1},
               "next_nodes": next})
    };
    json!({"nodes": (0..nodes).map(node).collect::<Vec<_>>()})
}

/// Costly validations do not run on the threads that answer `/health`.
#[test]
fn costly_validations_do_not_delay_health() -> Result<()> {
    let _alone = alone();
    let host = Host::start()?;
    good(host.upload("costly", costly_plugin(10)?)?)?;
    let graph = costly_graph(200).to_string();
    let mut durations = Vec::new();
    for _ in 0..8 {
        let mut stream = connect(&host)?;
        let path = "/v1/namespaces/default/graphs/costly/validate";
        let (address, length) = (address(&host), graph.len());
        write!(
            stream,
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n\r\n{graph}"
        )?;
        durations.push(stream);
    }
    let (started, mut slowest) = (Instant::now(), Duration::ZERO);
    while started.elapsed() < Duration::from_secs(5) {
        let durations = Instant::now();
        host.get("//health")?;
        slowest = slowest.max(durations.elapsed());
    }
    println!("the slowest answer of /health took {slowest:?}");
    ensure!(slowest < HEALTH_MAX.mul_f64(slack()), "{slowest:?}");
    Ok(())
}

/// Returns a graph that is large enough to be measured in the host's memory.
fn large_graph(bytes: usize) -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "next_nodes": [],
         "inputs": {"value": "x".repeat(bytes)}},
    ]})
}

#[test]
fn lists_of_large_graphs_take_little_memory() -> Result<()> {
    let _alone = alone();
    let postgres = Postgres::shared()?.create_database("lists")?;
    for flags in [&[][..], &["--database", &postgres]] {
        let folder = tempfile::tempdir()?;
        let host = Host::start_with(folder.path(), flags, |_| ())?;
        host.push("lab")?;
        let graph = large_graph(2_000_000);
        for number in 0..30 {
            host.apply(&format!("g{number:02}"), &graph)?;
        }
        let traffic = HonestTraffic::start(&host)?;
        let before = ProcessStats(host.pid()).memory_kb("VmHWM")?;
        std::thread::scope(|scope| {
            let list = || {
                for _ in 0..5 {
                    let graphs = host.get("/graphs")?;
                    let listed = graphs["graphs"].as_array().context("a list")?;
                    ensure!(listed.len() == 30 && listed[7]["nodes"] == 1, "{listed:?}");
                }
                anyhow::Ok(())
            };
            let all: Vec<_> = (0..16).map(|_| scope.spawn(list)).collect();
            all.into_iter().try_for_each(|list| list.join().unwrap())
        })?;
        let after = ProcessStats(host.pid()).memory_kb("VmHWM")?;
        // A list that read them would take sixty megabytes.
        ensure!(after - before < 60_000, "{flags:?}: from {before} kB to {after} kB");
        traffic.finish()?.hold(Bounds::default())?;
    }
    Ok(())
}

/// Forty concurrent callers read a graph of two megabytes each, while other reads are answered.
#[test]
fn large_reads_take_turns() -> Result<()> {
    let _alone = alone();
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    let graph = large_graph(3_000_000);
    host.apply("large", &graph)?;
    let traffic = HonestTraffic::start(&host)?;
    let before = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    // The callers send requests, and do not read the answers.
    let mut durations = Vec::new();
    for _ in 0..40 {
        let mut stream = connect(&host)?;
        let path = "/v1/namespaces/default/graphs/large";
        let (address, key) = (address(&host), host.authorization());
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: {key}\r\n\r\n")?;
        durations.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let after = ProcessStats(host.pid()).memory_kb("VmHWM")?;
    ensure!(after - before < 40_000, "from {before} kB to {after} kB");
    traffic.finish()?.hold(Bounds::default())?;
    drop(durations);
    let read = host.get("/graphs/large")?;
    ensure!(read["template"]["nodes"][0]["inputs"]["value"].as_str().unwrap().len() == 3_000_000);
    Ok(())
}

#[test]
fn lists_are_paged() -> Result<()> {
    let postgres = Postgres::shared()?.create_database("pages")?;
    for flags in [&[][..], &["--database", &postgres]] {
        let folder = tempfile::tempdir()?;
        let host = Host::start_with(folder.path(), flags, |_| ())?;
        for plugin in ["text", "tally", "lab"] {
            host.push(plugin)?;
            host.grant(plugin, &json!({"config": {"k": plugin}}))?;
        }
        host.push("lab")?;
        for name in ["c", "a", "b"] {
            host.apply(name, &large_graph(1))?;
            host.apply(name, &large_graph(2))?;
        }
        for namespace in ["two", "one"] {
            host.namespace(namespace, &json!({"slots": 1}))?;
        }
        let operator = "//v1/operator/namespaces";
        for (path, key, name, names) in [
            ("/graphs".to_owned(), "graphs", "name", ["a", "b", "c"]),
            ("/plugins".to_owned(), "plugins", "name", ["lab", "tally", "text"]),
            (operator.to_owned(), "namespaces", "name", ["default", "one", "two"]),
            (format!("{operator}/default/grants"), "grants", "plugin", ["lab", "tally", "text"]),
        ] {
            let of = |page: &Value| -> Vec<String> {
                let items = page[key].as_array().unwrap();
                items.iter().map(|item| item[name].as_str().unwrap().to_owned()).collect()
            };
            let whole = host.get(&path)?;
            ensure!(of(&whole) == names && whole["next"].is_null(), "{whole:#}");
            let first = host.get(&format!("{path}?limit=2"))?;
            ensure!(of(&first) == names[..2] && first["next"] == names[1], "{first:#}");
            let rest = host.get(&format!("{path}?limit=2&after={}", names[1]))?;
            ensure!(of(&rest) == names[2..] && rest["next"].is_null(), "{rest:#}");
            let (status, _) = host.refused("GET", &format!("{path}?limit=x"), &json!({}))?;
            ensure!(status == 400);
        }
        let graphs = host.get("/graphs")?;
        ensure!(graphs["graphs"][0]["revision"] == 2 && graphs["graphs"][0]["nodes"] == 1);
        ensure!(graphs["graphs"][0]["created_at"].as_i64() > Some(0), "{graphs:#}");
        let plugins = host.get("/plugins")?;
        let (listed, shown) = (&plugins["plugins"][1], host.get("/plugins/tally")?);
        for field in ["name", "version", "digest", "size", "uploaded_at"] {
            ensure!(listed[field] == shown[field], "{field}: {listed:#} {shown:#}");
        }
        ensure!(listed["nodes"][0] == shown["nodes"][0]["name"], "{listed:#}");
    }
    Ok(())
}

/// A page ends after a mebibyte, even if more items were requested.
#[test]
fn pages_are_bounded_by_bytes() -> Result<()> {
    const PLUGINS: usize = 24;
    let host = Host::start()?;
    let value = "x".repeat(60_000);
    for number in 0..PLUGINS {
        host.grant(&format!("p{number:02}"), &json!({"config": {"k": value}}))?;
    }
    let path = "//v1/operator/namespaces/default/grants";
    let first = host.get(path)?;
    let count = |page: &Value| page["grants"].as_array().map_or(0, Vec::len);
    let next = first["next"].as_str().context("a page of all of them")?;
    ensure!((17..=19).contains(&count(&first)), "{} on the first page", count(&first));
    let rest = host.get(&format!("{path}?after={next}"))?;
    ensure!(count(&first) + count(&rest) == PLUGINS && rest["next"].is_null());
    Ok(())
}
