//! The logs of runs: in pages of the API, and on the command line while the run continues.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::both_databases::on_both;
use serde_json::{Value, json};

/// Returns a fanout whose branches log, and whose last node logs later.
fn logging() -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "split", "inputs": {"n": 20}, "next_nodes": ["branch"]},
        {"node_name": "log", "identifier": "branch",
         "inputs": {"lines": ["first", "of branch ${{ split.outputs.i }}"]}, "next_nodes": []},
    ]})
}

/// Reads the logs of a run, in pages of `limit`.
fn pages(host: &Host, run: &str, query: &str, limit: u32) -> Result<Vec<Value>> {
    let (mut all, mut after) = (Vec::new(), String::new());
    loop {
        let page = host.get(&format!("/runs/{run}/logs?limit={limit}{query}{after}"))?;
        let attempts = page["attempts"].as_array().context("a page has attempts")?;
        ensure!(attempts.len() <= limit as usize, "{page}");
        all.extend(attempts.iter().cloned());
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Ok(all),
        }
    }
}

#[test]
fn logs_are_listed_as_attempts_end() -> Result<()> {
    on_both("logs_list", &[], |host| {
        host.push("lab")?;
        host.apply("logging", &logging())?;
        let run = host.run("logging", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        let all = pages(host, &run, "", 1000)?;
        ensure!(all.len() == 20, "{all:#?}");
        ensure!(all == pages(host, &run, "", 3)?, "pages are parts of the list");
        ensure!(all.is_sorted_by_key(|log| log["ended_at"].as_i64()), "{all:#?}");
        for log in &all {
            let path = log["path"].as_str().context("a log has a path")?;
            let number =
                path.trim_start_matches("split.branch[").split(']').next().context("a number")?;
            let messages: Vec<_> = log["logs"]
                .as_array()
                .context("a log has lines")?
                .iter()
                .map(|line| &line["message"])
                .collect();
            ensure!(messages == [&json!("first"), &json!(format!("of branch {number}"))], "{log}");
        }
        let one = pages(host, &run, "&state=split.branch[7]", 1000)?;
        ensure!(one.len() == 1 && one[0]["path"] == "split.branch[7]", "{one:#?}");
        let last = all.last().and_then(|log| log["ended_at"].as_i64()).context("a last log")?;
        let late = pages(host, &run, &format!("&since={last}"), 1000)?;
        ensure!(!late.is_empty() && late.iter().all(|log| log["ended_at"] == last), "{late:#?}");
        ensure!(pages(host, &run, &format!("&since={}", last + 1), 1000)?.is_empty());
        let (status, problem) =
            host.refused("GET", &format!("/runs/{run}/logs?after=1"), &json!({}))?;
        ensure!(status == 400 && problem["type"] == "/problems/bad-query", "{problem}");
        Ok(())
    })
}

#[test]
fn outcomes_of_logs_are_those_of_attempts() -> Result<()> {
    on_both("logs_outcomes", &[], |host| {
        host.push("flaky")?;
        let flaky = json!({
            "nodes": [{"node_name": "flaky", "identifier": "only", "next_nodes": [],
                "inputs": {"fail_attempts": 2}}],
            "retry_policy": {"max_retries": 1, "strategy": "FIXED", "backoff_factor": 1},
        });
        host.apply("flaky", &flaky)?;
        let run = host.run("flaky", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        let logs = pages(host, &run, "", 1000)?;
        let state = host.get(&format!("/runs/{run}/states/only"))?;
        let attempts = state["attempts"].as_array().context("a state has attempts")?;
        let outcomes = |list: &[Value]| -> Vec<Value> {
            list.iter().map(|one| one["outcome"].clone()).collect()
        };
        ensure!(outcomes(&logs) == outcomes(attempts), "{logs:#?} {attempts:#?}");
        ensure!(outcomes(&logs) == [json!("ERRORED"), json!("ERRORED")], "{logs:#?}");
        Ok(())
    })
}

#[test]
fn logs_are_followed_to_the_end() -> Result<()> {
    on_both("logs_follow", &["--slots", "2"], |host| {
        host.push("lab")?;
        let slow = json!({"nodes": [
            {"node_name": "fan", "identifier": "split", "inputs": {"n": 6}, "next_nodes": ["wait"]},
            {"node_name": "wait", "identifier": "wait", "next_nodes": ["log"],
             "inputs": {"ms": 300, "value": "${{ split.outputs.i }}"}},
            {"node_name": "log", "identifier": "log", "next_nodes": [],
             "inputs": {"lines": ["of branch ${{ wait.outputs.value }}"]}},
        ]});
        host.apply("slow", &slow)?;
        let run = host.run("slow", &json!({}), &json!({}))?;
        let mut follow = host.command()?;
        follow.args(["run", "logs", &run, "--follow"]).stdout(Stdio::piped());
        let output = follow.spawn()?.wait_with_output()?;
        let text = String::from_utf8(output.stdout)?;
        ensure!(output.status.success(), "{text}");
        let mut messages: Vec<_> =
            text.lines().filter_map(|line| Some(line.split_once("debug")?.1.trim())).collect();
        messages.sort_unstable();
        let expected: Vec<_> = (0..6).map(|branch| format!("of branch {branch}")).collect();
        ensure!(messages == expected, "each line once: {text}");
        Ok(())
    })
}
