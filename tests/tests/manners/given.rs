//! Inputs of runs and states, results and outputs.

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, path_of, until};
use serde_json::{Value, json};

use crate::{client, fails, prints, run_words, split_graph};

#[test]
fn a_run_shows_what_it_was_given() -> Result<()> {
    on_both("given", &[], |host| {
        let run = run_words(host)?;
        let given = host.get(&format!("/runs/{run}/inputs"))?;
        ensure!(given["inputs"] == json!({"n": 4}), "{given:#}");
        ensure!(given["store"] == json!({"word": "tide"}), "{given:#}");
        ensure!(given["idempotency_key"] == "first" && given["delay_ms"] == 20, "{given:#}");
        ensure!(given["labels"] == json!({}), "{given:#}");
        let due = given["created_at"].as_i64().context("a time")? + 20;
        ensure!(given["due_at"] == due, "{given:#}");
        ensure!(host.get(&format!("/runs/{run}"))?["due_at"] == due);
        let shown = prints(host, &["run", "inputs", &run])?;
        for part in ["words:1", "first", "20 ms", "\"n\": 4", "word       tide"] {
            ensure!(shown.contains(part), "{part} is missing in\n{shown}");
        }
        ensure!(prints(host, &["run", "inputs", &run, "--raw"])? == "{\"n\":4}\n");
        // A large store of a start has a row of its own.
        let large = json!({"word": "x".repeat(60_000)});
        let run = host.run("words", &json!({"n": 1}), &large)?;
        ensure!(host.get(&format!("/runs/{run}/inputs"))?["store"] == large);
        host.wait_for(&run)?;
        // Later writes to the store change nothing of it.
        let plain = host.run("words", &json!({}), &json!({}))?;
        let given = host.get(&format!("/runs/{plain}/inputs"))?;
        ensure!(given["store"] == json!({"word": "none"}) && given["delay_ms"] == 0, "{given:#}");
        host.wait_for(&plain)?;
        Ok(())
    })
}

#[test]
fn inputs_are_rendered_as_nodes_saw_them() -> Result<()> {
    on_both("inputs", &[], |host| {
        let run = run_words(host)?;
        for state in host.list(&run, "")? {
            let path = path_of(&state)?.to_owned();
            let url = format!("/runs/{run}/states/{path}");
            let answer = host.request("GET", &format!("{url}/inputs"))?.send()?.text()?;
            let (_, inputs) = answer.split_once(r#""inputs":"#).context("inputs")?;
            let inputs = inputs.trim_end_matches(r#","failure":null}"#);
            // What the attempt was billed for is the length of what the node saw.
            let used = host.get(&url)?["usage"]["input_bytes"].as_u64();
            ensure!(used == Some(inputs.len() as u64), "{path}: {used:?} and {inputs}");
            let raw = prints(host, &["run", "inputs", &run, &path, "--raw"])?;
            ensure!(raw.trim_end() == inputs, "{raw}");
        }
        let of = |path: &str| host.get(&format!("/runs/{run}/states/{path}/inputs"));
        ensure!(of("split")?["inputs"] == json!({"n": 4, "value": "tide"}));
        ensure!(of("split.count[3]")?["inputs"]["value"] == json!({"i": 3, "of": "tide"}));
        let values = of("split.all")?["inputs"]["values"].clone();
        ensure!(values[3] == json!({"i": 3, "of": "tide"}), "{values}");
        Ok(())
    })
}

#[test]
fn a_waiting_unite_has_no_inputs_yet() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let graph = json!({"nodes": [
        {"node_name": "fan", "identifier": "fan", "inputs": {"n": 1}, "next_nodes": ["wait"]},
        {"node_name": "wait", "identifier": "wait", "inputs": {"ms": 60_000}, "next_nodes": ["all"]},
        {"node_name": "collect", "identifier": "all", "inputs": {"values": "${{ wait.outputs.value }}"},
         "unites": {"identifier": "fan"}, "next_nodes": []},
    ]});
    host.apply("slow", &graph)?;
    let run = host.run("slow", &json!({}), &json!({}))?;
    host.wait_until(&run, |run| run["counts"]["states"] == 3)?;
    let (status, refused) =
        host.refused("GET", &format!("/runs/{run}/states/fan.all/inputs"), &json!({}))?;
    ensure!(status == 409 && refused["detail"].as_str().unwrap().contains("WAITING"), "{refused}");
    // It shows since when and where it runs.
    let running = until("the wait", || {
        let state = host.get(&format!("/runs/{run}/states/fan.wait[0]"))?;
        Ok((state["status"] == "QUEUED").then_some(state))
    })?;
    ensure!(running["began_at"].is_i64() && running["host"] == 1, "{running:#}");
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    Ok(())
}

#[test]
fn a_retried_state_shows_when_it_is_due() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply(
        "fails",
        &json!({
            "nodes": [{"node_name": "fail_when", "identifier": "only",
                       "inputs": {"value": 1, "equals": 1, "permanent": false}, "next_nodes": []}],
            "retry_policy": {"max_retries": 1, "strategy": "FIXED", "backoff_factor": 3_600_000},
        }),
    )?;
    let run = host.run("fails", &json!({}), &json!({}))?;
    host.wait_until(&run, |run| run["counts"]["retries"] == 1)?;
    let state = host.get(&format!("/runs/{run}/states/only"))?;
    let wait = state["due_at"].as_i64().context("due")?
        - state["created_at"].as_i64().context("created")?;
    ensure!((3_600_000..3_700_000).contains(&wait), "{state:#}");
    ensure!(prints(&host, &["run", "show", &run, "only"])?.contains("DUE"));
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    Ok(())
}

#[test]
fn a_result_is_what_the_last_states_gave() -> Result<()> {
    on_both("results", &[], |host| {
        let run = run_words(host)?;
        let result = host.get(&format!("/runs/{run}/result"))?;
        let values: Vec<Value> = (0..4).map(|i| json!({"i": i, "of": "tide"})).collect();
        let output = json!({"path": "split.all", "index": 0, "output": {"values": values}});
        ensure!(
            result["outputs"] == json!([output]) && result["status"] == "SUCCESS",
            "{result:#}"
        );
        ensure!(result["next"].is_null(), "{result:#}");
        let raw = prints(host, &["run", "result", &run, "--raw"])?;
        ensure!(serde_json::from_str::<Value>(&raw)? == json!({"values": values}), "{raw}");
        let watched = prints(host, &["run", "start", "words", "--watch"])?;
        ensure!(watched.contains("result\nsplit.all, output 0"), "{watched}");
        // The last states are many: pages of their outputs.
        host.apply("wide", &json!({"nodes": [
            {"node_name": "fan", "identifier": "a", "inputs": {"n": 5}, "next_nodes": ["b"]},
            {"node_name": "fan", "identifier": "b", "inputs": {"n": 2, "value": "${{ a.outputs.i }}"},
             "next_nodes": []},
        ]}))?;
        let run = host.run("wide", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        let mut found = Vec::new();
        let mut page = host.get(&format!("/runs/{run}/result?limit=3"))?;
        loop {
            found.extend(page["outputs"].as_array().context("outputs")?.clone());
            let Some(next) = page["next"].as_str() else { break };
            page = host
                .get(&format!("/runs/{run}/result?limit=3&after={}", next.replace('~', "%7E")))?;
        }
        let found: Vec<_> =
            found.iter().map(|it| (it["output"]["value"].as_i64(), it["index"].as_i64())).collect();
        let expected: Vec<_> =
            (0..5).flat_map(|a| [(Some(a), Some(0)), (Some(a), Some(1))]).collect();
        ensure!(found == expected, "{found:?}");
        let shown = prints(host, &["run", "result", &run, "--limit", "4"])?;
        let (_, next) = shown.split_once("more: exosphere ").context("the next command")?;
        ensure!(
            next.contains(&format!("run result {run} --limit 4")) && next.contains("--after "),
            "{shown}"
        );
        ensure!(next.contains("--all"), "{shown}");
        let (status, refused) =
            host.refused("GET", &format!("/runs/{run}/result?after=x"), &json!({}))?;
        ensure!(status == 400, "{refused}");
        Ok(())
    })
}

#[test]
fn outputs_past_the_first_page_are_read() -> Result<()> {
    on_both("outputs", &[], |host| {
        host.push("lab")?;
        host.apply(
            "fan",
            &json!({"nodes": [
                {"node_name": "fan", "identifier": "only", "inputs": {"n": 1001}, "next_nodes": []},
            ]}),
        )?;
        let run = host.run("fan", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        let page = host.get(&format!("/runs/{run}/states/only/outputs"))?;
        ensure!(page["outputs"].as_array().map(Vec::len) == Some(1000), "{}", page["next"]);
        ensure!(page["next"] == "1000", "{}", page["next"]);
        let rest = host.get(&format!("/runs/{run}/states/only/outputs?after=1000"))?;
        ensure!(
            rest["outputs"] == json!([{"i": 1000, "value": null}]) && rest["next"].is_null(),
            "{rest}"
        );
        let all = prints(host, &["run", "outputs", &run, "only", "--all", "--raw"])?;
        ensure!(all.lines().count() == 1001, "{}", all.lines().count());
        // Where it is cut, it says so, with the command that continues.
        let shown = prints(host, &["run", "show", &run, "only"])?;
        let more = format!("981 more outputs: exosphere run outputs {run}/only --after 20 --host ");
        ensure!(shown.contains(&more) && shown.lines().count() < 150, "{shown}");
        let next = prints(host, &["run", "outputs", &format!("{run}/only"), "--after", "1000"])?;
        ensure!(next.starts_with("output 1000\n"), "{next}");
        ensure!(
            fails(host, &["run", "outputs", &run, "only", "--limit", "1001"], 2)?
                .contains("1..=1000")
        );
        Ok(())
    })
}

#[test]
fn raw_output_has_nothing_but_results() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("words", &split_graph())?;
    let body = json!({"delay_ms": 3_600_000, "store": {"word": "w"}});
    let run = host.send("POST", "/graphs/words/runs", &body)?;
    let run = run["run"].as_str().context("an id")?;
    for (words, why) in [
        (vec!["run", "result", run, "--raw"], "no results yet"),
        (vec!["run", "outputs", run, "split", "--raw"], "the state has no outputs"),
    ] {
        let output = client(&host, &words)?.output()?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.success() && output.stdout.is_empty(), "{words:?}: {said}");
        ensure!(said.contains(why), "{said}");
    }
    Ok(())
}
