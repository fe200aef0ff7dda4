//! Timelines: when and where each attempt ran, what became of the states of each node, and which
//! hosts there are.

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, checkout, path_of};
use serde_json::{Value, json};

fn time(value: &Value, member: &str) -> Result<i64> {
    value[member].as_i64().with_context(|| format!("{member} of {value:#}"))
}

#[test]
fn attempts_show_begin_and_host() -> Result<()> {
    on_both("timeline", &["--name", "timeline"], |host| {
        host.push("flaky")?;
        let graph = std::fs::read_to_string(checkout().join("tests/cases/retries/graph.json"))?;
        let run = host.result_of("flaky", &serde_json::from_str(&graph)?, &json!({}))?;
        ensure!(run["status"] == "SUCCESS", "{run:#}");
        let id = run["run"].as_str().context("an id")?;
        let states = host.states(id, "flaky")?;
        let state = host.get(&format!("/runs/{id}/states/{}", path_of(&states[0])?))?;
        let mut last_end = time(&state, "created_at")?;
        let attempts = state["attempts"].as_array().context("attempts")?;
        ensure!(attempts.len() == 3, "{state:#}");
        for attempt in attempts {
            ensure!(attempt["host"] == 1, "{attempt:#}");
            let (began, ended) = (time(attempt, "began_at")?, time(attempt, "ended_at")?);
            ensure!(last_end <= began && began <= ended, "after {last_end}: {attempt:#}");
            last_end = ended;
        }
        ensure!(state["host"] == 1 && state["began_at"] == attempts[2]["began_at"], "{state:#}");
        let node = &run["nodes"][0];
        let counts = ["waiting", "active", "success", "errored", "retries"];
        let counts: Vec<_> = counts.iter().map(|name| node[name].as_i64()).collect();
        ensure!(counts == [0, 0, 1, 0, 2].map(Some), "{node:#}");
        Ok(())
    })
}

#[test]
fn hosts_keep_their_numbers() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let listed = |name: &str| -> Result<Value> {
        let host = Host::start_with(folder.path(), &["--name", name], |_| {})?;
        host.get("//v1/operator/hosts")
    };
    let first = listed("first")?;
    let second = listed("second")?;
    for (list, name) in [(&first, "first"), (&second, "second")] {
        let hosts = list["hosts"].as_array().context("hosts")?;
        ensure!(hosts.len() == 1, "{list:#}");
        let host = &hosts[0];
        ensure!(host["number"] == 1 && host["name"] == name && host["alive"] == true, "{host:#}");
        ensure!(host["version"] == env!("CARGO_PKG_VERSION"), "{host:#}");
    }
    let started_at = |list: &Value| time(&list["hosts"][0], "started_at");
    ensure!(time(&second["hosts"][0], "first_seen_at")? == started_at(&first)?);
    ensure!(started_at(&second)? > started_at(&first)?);
    Ok(())
}
