//! Lists of runs and states by their filters, and the labels of runs: through the API and the
//! command line, on both databases.

use anyhow::{Context, Result, ensure};
use exosphere_tests::Host;
use exosphere_tests::both_databases::on_both;
use serde_json::{Value, json};

/// Returns a fanout of four branches, of which one fails.
fn failing() -> Value {
    json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": 4}, "next_nodes": ["worker"]},
        {"node_name": "fail_when", "identifier": "worker", "next_nodes": [],
         "inputs": {"value": "${{ splitter.outputs.i }}", "equals": 1}},
    ]})
}

/// Returns a graph of one node that echoes its input.
fn echo() -> Value {
    json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": 0}, "next_nodes": []},
    ]})
}

/// Runs the command line on a host, and returns its standard output.
fn exosphere(host: &Host, arguments: &[&str]) -> Result<String> {
    let output = host.command()?.args(arguments).output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "exosphere {arguments:?}: {error}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Returns the ids of the runs that a filter finds.
fn runs(host: &Host, filter: &str) -> Result<Vec<String>> {
    let page = host.get(&format!("/runs?{filter}"))?;
    let runs = page["runs"].as_array().context("a page has runs")?;
    runs.iter().map(|run| Ok(run["run"].as_str().context("a run has an id")?.to_owned())).collect()
}

/// Starts a run with labels, and waits for its end.
fn run(host: &Host, graph: &str, labels: &Value) -> Result<String> {
    let path = format!("/graphs/{graph}/runs?wait_ms=30000");
    let run = host.send("POST", &path, &json!({"labels": labels}))?;
    ensure!(run["labels"] == *labels, "{run:#}");
    Ok(run["run"].as_str().context("a run has an id")?.to_owned())
}

#[test]
fn runs_are_found_by_their_labels() -> Result<()> {
    on_both("labels", &[], |host| {
        host.push("lab")?;
        host.apply("one", &echo())?;
        host.apply("other", &echo())?;
        let a = run(host, "one", &json!({"team": "a", "env": "prod"}))?;
        let b = run(host, "one", &json!({"team": "b", "url": "http://x:1"}))?;
        let c = run(host, "other", &json!({"team": "a"}))?;
        ensure!(runs(host, "label=team:a")? == [c.as_str(), &a]);
        ensure!(runs(host, "label=team:a&graph=one&status=SUCCESS")? == [a.as_str()]);
        ensure!(runs(host, "label=team:a&label=env:prod")? == [a.as_str()]);
        ensure!(runs(host, "label=url:http://x:1")? == [b.as_str()]);
        ensure!(runs(host, "label=team:a&status=FAILED&status=RUNNING")?.is_empty());
        let created_at = host.get(&format!("/runs/{b}"))?["created_at"].clone();
        ensure!(!runs(host, &format!("created_before={created_at}"))?.contains(&b));
        ensure!(runs(host, &format!("created_after={created_at}"))?.contains(&b));
        let shown = host.get(&format!("/runs/{a}"))?;
        ensure!(shown["labels"] == json!({"team": "a", "env": "prod"}), "{shown:#}");
        Ok(())
    })
}

#[test]
fn labels_are_part_of_a_keyed_start() -> Result<()> {
    on_both("keyed_labels", &[], |host| {
        host.push("lab")?;
        host.apply("one", &echo())?;
        let start = |labels: Value| json!({"idempotency_key": "k", "labels": labels});
        let path = "/graphs/one/runs";
        let first = host.send("POST", path, &start(json!({"team": "a"})))?;
        let again = host.send("POST", path, &start(json!({"team": "a"})))?;
        ensure!(again["run"] == first["run"] && again["started_before"] == true, "{again:#}");
        for labels in [json!({"team": "b"}), json!({})] {
            let (status, problem) = host.refused("POST", path, &start(labels))?;
            ensure!(status == 422 && problem["errors"][0]["path"] == "$.labels", "{problem:#}");
        }
        Ok(())
    })
}

#[test]
fn invalid_labels_and_filters_have_paths() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("one", &echo())?;
    let labels: Value = (0..17).map(|n| (format!("k{n}"), json!("v"))).collect();
    for (labels, paths) in [
        (json!({"a b": "v", "n": 1, "ok": "v"}), vec![r#"$.labels["a b"]"#, "$.labels.n"]),
        (json!({"k": "v".repeat(257)}), vec!["$.labels.k"]),
        (json!(["a"]), vec!["$.labels"]),
        (labels, vec!["$.labels"]),
    ] {
        let body = json!({"labels": labels});
        let (status, problem) = host.refused("POST", "/graphs/one/runs", &body)?;
        let found: Vec<_> = problem["errors"].as_array().into_iter().flatten().collect();
        let found: Vec<_> = found.iter().filter_map(|error| error["path"].as_str()).collect();
        ensure!(status == 422 && found == paths, "{problem:#}");
    }
    let query = "/runs?status=FAILD&label=team&limit=1001&after=x";
    let (status, problem) = host.refused("GET", query, &json!({}))?;
    ensure!(status == 400 && problem["errors"].as_array().map_or(0, Vec::len) == 3, "{problem:#}");
    ensure!(problem["errors"][0]["message"].as_str().is_some_and(|it| it.contains("FAILED")));
    Ok(())
}

#[test]
fn states_are_found_by_failure() -> Result<()> {
    on_both("failures", &[], |host| {
        host.push("lab")?;
        host.apply("failing", &failing())?;
        let run = run(host, "failing", &json!({}))?;
        let found = |filter: &str| host.list(&run, filter);
        let failed = found("status=ERRORED")?;
        ensure!(failed.len() == 1, "{failed:#?}");
        let failure = &failed[0]["failure"];
        ensure!(failure["details"].is_null(), "payloads are not listed: {failure:#}");
        let kind = failure["kind"].as_str().context("a failure has a kind")?;
        ensure!(found(&format!("kind={kind}"))? == failed);
        let message = failure["message"].as_str().context("a failure has a message")?;
        let message = message.replace(' ', "%20");
        ensure!(found(&format!("message={message}&identifier=worker"))? == failed);
        ensure!(found("message=other")?.is_empty());
        ensure!(found("status=ERRORED&status=SUCCESS&identifier=worker")?.len() == 4);
        let succeeded = found("status=SUCCESS")?;
        ensure!(succeeded.len() == 4, "{succeeded:#?}");
        ensure!(succeeded[0]["output_bytes"].as_u64().is_some_and(|bytes| bytes > 0));
        let path = format!("/runs/{run}/states?status=SUCCESS&kind=trap");
        let (status, problem) = host.refused("GET", &path, &json!({}))?;
        ensure!(status == 400 && problem["errors"][0]["path"] == "query.kind", "{problem:#}");
        Ok(())
    })
}

#[test]
fn the_command_line_lists_by_filters() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("one", &echo())?;
    host.apply("failing", &failing())?;
    let labels = ["--label", "team=a", "--label", "env=prod"];
    let start = [&["run", "start", "one", "--json"], &labels[..]].concat();
    let started: Value = serde_json::from_str(&exosphere(&host, &start)?)?;
    let id = started["run"].as_str().context("a run has an id")?;
    host.wait_for(id)?;
    let failed = run(&host, "failing", &json!({}))?;
    let listed = exosphere(&host, &["run", "list", "--label", "team=a", "--since", "1h"])?;
    ensure!(listed.contains("env=prod team=a") && !listed.contains(&failed), "{listed}");
    let listed = exosphere(&host, &["run", "list", "--status", "failed", "--status", "running"])?;
    ensure!(listed.contains(&failed) && !listed.contains(id), "{listed}");
    let listed = exosphere(&host, &["run", "list", "--until", "1h"])?;
    ensure!(!listed.contains(&failed), "{listed}");
    // The first page is full, and says how to continue.
    let listed = exosphere(&host, &["run", "list", "--limit", "1"])?;
    let token = listed.split("--after ").nth(1).context("there is more")?.trim().to_owned();
    let listed = exosphere(&host, &["run", "list", "--after", &token])?;
    ensure!(listed.contains(id) && !listed.contains(&failed), "{listed}");
    let shown = exosphere(&host, &["run", "show", id])?;
    ensure!(shown.contains("labels: env=prod team=a"), "{shown}");
    let states = ["run", "states", &failed, "--kind", "permanent", "--node", "worker"];
    let listed = exosphere(&host, &states)?;
    ensure!(listed.lines().count() == 2 && listed.contains("ERRORED"), "{listed}");
    Ok(())
}
