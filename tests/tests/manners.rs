//! Manners of the command line, with the real binary: what a run was given and what it gave, names
//! of runs and states, inputs from files, refusals that suggest, and stops.
//!
//! Not here: starts in outages (`starts`), and the client without a host (`host/cli/tests`).

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, binary, good, path_of, problem, until};
use rustix::process::Signal;
use serde_json::{Value, json};

/// Returns a command of the client.
fn client(host: &Host, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(binary()?);
    command.args(words).args(["--host", host.url()]);
    command.env_remove("EXOSPHERE_HOST").env_remove("EXOSPHERE_NAMESPACE");
    Ok(command)
}

/// Runs a command that must succeed, and returns its output.
fn prints(host: &Host, words: &[&str]) -> Result<String> {
    let output = client(host, words)?.output()?;
    ensure!(output.status.success(), "{words:?}: {output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

/// Runs a command that must fail, and returns its message.
fn fails(host: &Host, words: &[&str], code: i32) -> Result<String> {
    let output = client(host, words)?.output()?;
    ensure!(output.status.code() == Some(code), "{words:?}: {output:?}");
    ensure!(output.stdout.is_empty(), "{words:?}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

/// Runs a command with text on its standard input.
fn with_input(host: &Host, words: &[&str], input: &str) -> Result<Output> {
    let mut command = client(host, words)?;
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    child.stdin.take().context("standard input")?.write_all(input.as_bytes())?;
    Ok(child.wait_with_output()?)
}

/// Returns a graph that fans out, works on each branch, and collects.
fn words() -> Value {
    json!({
        "nodes": [
            {"node_name": "fan", "identifier": "split", "inputs": {"n": 3, "value": "${{ store.word }}"},
             "next_nodes": ["count"]},
            {"node_name": "echo", "identifier": "count",
             "inputs": {"value": {"i": "${{ split.outputs.i }}", "of": "${{ split.outputs.value }}"}},
             "next_nodes": ["all"]},
            {"node_name": "collect", "identifier": "all", "inputs": {"values": "${{ count.outputs.value }}"},
             "unites": {"identifier": "split"}, "next_nodes": []},
        ],
        "store_config": {"default_values": {"word": "none"}},
    })
}

/// Starts a run of the graph above, and returns its id once it has ended.
fn run_words(host: &Host) -> Result<String> {
    host.push("lab")?;
    host.apply("words", &words())?;
    let body = json!({
        "inputs": {"n": 4}, "store": {"word": "tide"}, "idempotency_key": "first", "delay_ms": 20,
    });
    let run = host.send("POST", "/graphs/words/runs", &body)?;
    let run = run["run"].as_str().context("an id")?.to_owned();
    let ended = host.wait_for(&run)?;
    ensure!(ended["status"] == "SUCCESS", "{ended:#}");
    Ok(run)
}

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
        // Where it is cut, it says so, with the command that goes on.
        let shown = prints(host, &["run", "show", &run, "only"])?;
        let more = format!("981 more outputs: exosphere run outputs '{run}/only' --after 20");
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
fn runs_are_named_by_prefix_and_latest() -> Result<()> {
    on_both("names", &[], |host| {
        ensure!(fails(host, &["run", "show", "latest"], 1)?.contains("no run"));
        let run = run_words(host)?;
        let id = |words: &[&str]| -> Result<String> {
            let shown: Value = serde_json::from_str(&prints(host, words)?)?;
            Ok(shown["run"].as_str().context("a run")?.to_owned())
        };
        ensure!(id(&["run", "show", "latest", "--json"])? == run);
        ensure!(id(&["run", "show", &run[..20], "--json"])? == run);
        ensure!(id(&["run", "show", &run.replace('-', "")[..12], "--json"])? == run);
        ensure!(id(&["run", "inputs", "latest", "--json"])? == run);
        let second = host.run("words", &json!({}), &json!({}))?;
        host.wait_for(&second)?;
        ensure!(id(&["run", "show", "latest", "--json"])? == second);
        // The digits of the hour are those of both.
        let several = fails(host, &["run", "show", &run[..6]], 1)?;
        ensure!(several.contains(&run) && several.contains(&second), "{several}");
        ensure!(fails(host, &["run", "show", "0195ffff0000"], 1)?.contains("no run"));
        ensure!(fails(host, &["run", "cancel", "no"], 2)?.contains("latest"));
        Ok(())
    })
}

#[test]
fn states_are_named_by_their_paths() -> Result<()> {
    on_both("paths", &[], |host| {
        let run = run_words(host)?;
        let states = host.list(&run, "")?;
        let paths: Vec<&str> = states.iter().map(path_of).collect::<Result<_>>()?;
        let count = |i| format!("split.count[{i}]");
        let counts: Vec<String> = (0..4).map(count).collect();
        ensure!(
            paths[0] == "split" && paths[1..5] == counts && paths[5] == "split.all",
            "{paths:?}"
        );
        // No number tells how much work the others have.
        ensure!(states.iter().all(|state| state.get("number").is_none()), "{states:#?}");
        ensure!(states[2]["state"] == format!("{run}/split.count[1]"), "{states:#?}");
        let named = ["split[0].count[3]", "split.count[3]"];
        for name in named {
            let shown: Value =
                serde_json::from_str(&prints(host, &["run", "show", &run, name, "--json"])?)?;
            ensure!(shown["outputs"][0]["value"]["i"] == 3, "{name}: {shown:#}");
        }
        let shown = prints(host, &["run", "show", "latest/split.all"])?;
        ensure!(shown.contains("split.all"), "{shown}");
        let typo = fails(host, &["run", "show", &run, "split.cuont[1]"], 1)?;
        ensure!(typo.contains("did you mean count?"), "{typo}");
        let missing = fails(host, &["run", "show", &run, "split.count[9]"], 1)?;
        ensure!(missing.contains("exosphere run states"), "{missing}");
        Ok(())
    })
}

#[test]
fn inputs_come_from_files_and_pipes() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.push("text")?;
    let echo = json!({"nodes": [
        {"node_name": "echo", "identifier": "only", "inputs": {"value": 0}, "next_nodes": []},
    ]});
    let folder = tempfile::tempdir()?;
    let file = |name: &str, text: &str| -> Result<String> {
        let path = folder.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    };
    // A graph from a pipe, with the mark with which some editors begin.
    let applied =
        with_input(&host, &["graph", "apply", "-", "--name", "echo"], &format!("\u{feff}{echo}"))?;
    ensure!(applied.status.success(), "{applied:?}");
    let nameless = with_input(&host, &["graph", "apply", "-"], "{}")?;
    ensure!(nameless.status.code() == Some(2), "{nameless:?}");
    ensure!(String::from_utf8_lossy(&nameless.stderr).contains("--name"), "{nameless:?}");
    let broken = file("broken.json", "{\"nodes\": [\n  {,\n")?;
    let message = fails(&host, &["graph", "apply", &broken], 1)?;
    ensure!(message.contains(&broken) && message.contains("line 2"), "{message}");

    let given = |words: &[&str], input: &str| -> Result<Value> {
        let words = [&["run", "start", "echo", "--watch", "--json"], words].concat();
        let output = with_input(&host, &words, input)?;
        ensure!(output.status.success(), "{words:?}: {output:?}");
        let run: Value = serde_json::from_slice(&output.stdout)?;
        Ok(host.output(run["run"].as_str().context("an id")?, "only")?["value"].clone())
    };
    ensure!(given(&["--inputs", "-"], r#"{"value": [1]}"#)? == json!([1]));
    ensure!(
        given(&["--inputs", &file("in.json", "\u{feff}{\"value\": {\"a\": 2}}")?], "")?
            == json!({"a": 2})
    );
    ensure!(given(&["--input", "value=@-"], "[3]")? == json!("[3]"), "a text");
    ensure!(given(&["--input-json", "value=@-"], "[3]")? == json!([3]));
    ensure!(
        given(&["--input-json", &format!("value=@{}", file("x", "{\"b\": 4}")?)], "")?
            == json!({"b": 4})
    );
    let refused = fails(&host, &["run", "start", "echo", "--input", "value=[1,2,"], 2)?;
    ensure!(refused.contains("begins like JSON") && refused.contains("column"), "{refused}");
    let refused = fails(&host, &["run", "start", "echo", "--inputs", &broken], 1)?;
    ensure!(refused.contains(&broken) && refused.contains("line 2"), "{refused}");

    let words = std::fs::read(exosphere_tests::checkout().join("xtask/demo/words.json"))?;
    good(
        host.request("PUT", "/graphs/long")?
            .header("content-type", "application/json")
            .body(words)
            .send()?,
    )?;
    let refused = fails(&host, &["run", "start", "long", "--input", "text=12345"], 1)?;
    ensure!(refused.contains(r#"--input 'text="12345"'"#), "{refused}");
    Ok(())
}

#[test]
fn missing_names_are_errors_that_suggest() -> Result<()> {
    on_both("missing", &[], |host| {
        // A new host is empty, and that is no error.
        ensure!(prints(host, &["run", "list"])?.starts_with("RUN"));
        let run = run_words(host)?;
        for list in [["run", "list"], ["graph", "list"], ["plugin", "list"]] {
            let words = [&list[..], &["--namespace", "defualt"]].concat();
            let refused = fails(host, &words, 1)?;
            ensure!(
                refused.contains("no namespace") && refused.contains("did you mean default?"),
                "{refused}"
            );
        }
        let refused = fails(host, &["run", "list", "--graph", "wrods"], 1)?;
        ensure!(refused.contains("did you mean words?"), "{refused}");
        let refused = fails(host, &["run", "start", "wrods"], 1)?;
        ensure!(refused.contains("did you mean words?"), "{refused}");
        let refused = fails(host, &["plugin", "inspect", "lba"], 1)?;
        ensure!(refused.contains("did you mean lab?"), "{refused}");
        let refused = fails(host, &["run", "states", &run, "--identifier", "splti"], 1)?;
        ensure!(refused.contains("did you mean split?"), "{refused}");
        let last = if run.ends_with('0') { "1" } else { "0" };
        let mistyped = format!("{}{last}", &run[..run.len() - 1]);
        let refused = fails(host, &["run", "show", &mistyped], 1)?;
        ensure!(refused.contains(&format!("did you mean {run}?")), "{refused}");
        // Another namespace's names are no suggestions.
        let (status, refused) = host.refused("GET", "//v1/namespaces/defualt/runs", &json!({}))?;
        ensure!(status == 404 && refused["reason"] == "no-namespace", "{refused}");
        ensure!(!refused.to_string().contains("default"), "{refused}");
        Ok(())
    })
}

#[test]
fn statuses_use_one_word() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("absorbs", &json!({
        "nodes": [
            {"node_name": "fan", "identifier": "fan", "inputs": {"n": 2}, "next_nodes": ["some"]},
            {"node_name": "fail_when", "identifier": "some",
             "inputs": {"value": "${{ fan.outputs.i }}", "equals": 1}, "next_nodes": ["all"]},
            {"node_name": "collect", "identifier": "all", "inputs": {"values": "${{ some.outputs.value }}"},
             "unites": {"identifier": "fan", "strategy": "ALL_DONE"}, "next_nodes": []},
        ],
    }))?;
    let run = host.run("absorbs", &json!({}), &json!({}))?;
    let found = host.wait_for(&run)?;
    ensure!(found["status"] == "SUCCESS" && found["counts"]["errored"] == 1, "{found:#}");
    let shown = prints(&host, &["run", "show", &run])?;
    ensure!(shown.contains("SUCCESS (1 errored, absorbed)"), "{shown}");
    ensure!(prints(&host, &["run", "list"])?.contains("SUCCESS (1 errored, absorbed)"));
    for words in [&["run", "list"][..], &["run", "show", &run]] {
        let shown = prints(&host, words)?;
        ensure!(shown.contains("ERRORED") && !shown.contains("FAILED"), "{shown}");
    }
    ensure!(
        prints(&host, &["run", "states", &run, "--status", "errored"])?.contains("fan.some[1]")
    );

    // A cancelled run is not also paused.
    host.apply(
        "waits",
        &json!({"nodes": [
            {"node_name": "wait", "identifier": "only", "inputs": {"ms": 60_000}, "next_nodes": []},
        ]}),
    )?;
    let run = host.run("waits", &json!({}), &json!({}))?;
    host.send("POST", &format!("/runs/{run}/pause"), &json!({}))?;
    ensure!(prints(&host, &["run", "show", &run])?.contains("RUNNING (paused)"));
    let cancelled = host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    ensure!(cancelled["status"] == "CANCELLED" && cancelled["paused"] == false, "{cancelled:#}");
    let delayed = host.send("POST", "/graphs/waits/runs", &json!({"delay_ms": 3_600_000}))?;
    let delayed = delayed["run"].as_str().context("an id")?;
    let shown = prints(&host, &["run", "show", delayed])?;
    ensure!(shown.contains("RUNNING (delayed)") && shown.contains("it begins at"), "{shown}");
    Ok(())
}

#[test]
fn empty_variables_and_plain_addresses_are_taken() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &[], |command| {
        command
            .env("EXOSPHERE_SLOTS", "")
            .env("EXOSPHERE_NAME", "")
            .env("EXOSPHERE_MASTER_KEY", "");
    })?;
    let address = host.url().trim_start_matches("http://");
    let mut command = Command::new(binary()?);
    command.args(["run", "list", "--host", address]);
    let output = command.env("EXOSPHERE_NAMESPACE", "").env("EXOSPHERE_HOST", "").output()?;
    ensure!(output.status.success(), "{output:?}");
    drop(host);

    let mut command = Command::new(binary()?);
    let command = command.args(["serve", "--listen", "localhost:0", "--data"]).arg(folder.path());
    let mut process = command.env("EXOSPHERE_LOG", "warn").stdout(Stdio::piped()).spawn()?;
    let mut line = String::new();
    BufReader::new(process.stdout.take().context("its output")?).read_line(&mut line)?;
    process.kill()?;
    process.wait()?;
    ensure!(line.contains("http://127.0.0.1:"), "{line}");
    Ok(())
}

#[test]
fn a_draining_host_answers_reads() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let file = std::fs::File::create(&log)?;
    let mut host = Host::start_with(&folder.path().join("data"), &[], |command| {
        command.env("EXOSPHERE_LOG", "info").stderr(file);
    })?;
    host.push("lab")?;
    host.apply(
        "waits",
        &json!({"nodes": [
            {"node_name": "wait", "identifier": "slow", "inputs": {"ms": 5_000}, "next_nodes": []},
        ]}),
    )?;
    let run = host.run("waits", &json!({}), &json!({}))?;
    until("the wait", || {
        let state = host.get(&format!("/runs/{run}/states/slow"))?;
        Ok((state["status"] == "QUEUED").then_some(()))
    })?;
    host.terminate()?;
    until("the stop", || Ok((host.get("//health")?["status"] == "stopping").then_some(())))?;
    ensure!(host.get(&format!("/runs/{run}"))?["status"] == "RUNNING");
    ensure!(prints(&host, &["run", "list"])?.contains(&run));
    let refused = host.request("POST", "/graphs/waits/runs")?.json(&json!({})).send()?;
    let retry_after = refused.headers().get("retry-after").cloned();
    let (status, refused) = problem(refused)?;
    ensure!(status == 503 && refused["type"] == "/problems/stopping", "{refused}");
    ensure!(retry_after.is_some_and(|after| after == "5"), "{refused}");
    ensure!(host.wait()?.success());
    let log = std::fs::read_to_string(&log)?;
    ensure!(log.contains(&format!("slow of run {run}")) && log.contains("at_most_s"), "{log}");
    let host = Host::start_in(&folder.path().join("data"))?;
    ensure!(host.wait_for(&run)?["status"] == "SUCCESS");
    Ok(())
}

#[test]
fn an_interrupted_watch_says_that_the_run_goes_on() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply(
        "waits",
        &json!({"nodes": [
            {"node_name": "wait", "identifier": "slow", "inputs": {"ms": 60_000}, "next_nodes": []},
        ]}),
    )?;
    let run = host.run("waits", &json!({}), &json!({}))?;
    let mut command = client(&host, &["run", "watch", &run])?;
    let mut watch = command.stderr(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stderr = BufReader::new(watch.stderr.take().context("stderr")?);
    let mut line = String::new();
    stderr.read_line(&mut line)?;
    ensure!(line.contains("states"), "{line}");
    let pid = i32::try_from(watch.id())?;
    let pid = rustix::process::Pid::from_raw(pid).context("a process id")?;
    rustix::process::kill_process(pid, Signal::INT)?;
    let mut rest = String::new();
    stderr.read_to_string(&mut rest)?;
    ensure!(watch.wait()?.code() == Some(130), "{rest}");
    ensure!(
        rest.contains("the run goes on") && rest.contains(&format!("run cancel {run}")),
        "{rest}"
    );
    ensure!(host.get(&format!("/runs/{run}"))?["status"] == "RUNNING");
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    Ok(())
}

#[test]
fn secrets_are_set_without_a_clear_file() -> Result<()> {
    on_both("secret", &[], |host| {
        host.push("lab")?;
        let graph = json!({
            "nodes": [{"node_name": "secret", "identifier": "only", "inputs": {"name": "token"}, "next_nodes": []}],
        });
        let set = |value: &str| {
            let words = ["secret", "set", "token", "--graph", "reads", "--from-file", "-"];
            let output = with_input(host, &words, value)?;
            ensure!(output.status.success(), "{output:?}");
            ensure!(!String::from_utf8_lossy(&output.stdout).contains("hush"), "{output:?}");
            Ok(())
        };
        // Before the graph, whose template then has no secrets.
        set("hush-hush-one\n")?;
        let (status, refused) = host.refused("PUT", "/graphs/reads", &graph)?;
        ensure!(
            status == 422 && refused.to_string().contains("grant add lab --secret token"),
            "{refused}"
        );
        host.grant("lab", &json!({"secrets": ["token"]}))?;
        host.apply("reads", &graph)?;
        let seen = || -> Result<String> {
            let run = host.run("reads", &json!({}), &json!({}))?;
            host.wait_for(&run)?;
            Ok(host.output(&run, "only")?["value"].as_str().context("a secret")?.to_owned())
        };
        ensure!(seen()? == "hush-hush-one");
        set("hush-hush-two")?;
        ensure!(seen()? == "hush-hush-two");
        let listed = prints(host, &["secret", "list"])?;
        ensure!(listed.contains("reads  token") && !listed.contains("hush"), "{listed}");
        ensure!(!host.get("/secrets")?.to_string().contains("hush"));
        let refused = fails(host, &["secret", "remove", "token", "--graph", "reads"], 1)?;
        ensure!(refused.contains("the node only of the graph reads declares"), "{refused}");
        let refused = fails(host, &["secret", "remove", "tokne", "--graph", "reads"], 1)?;
        ensure!(refused.contains("did you mean token?"), "{refused}");
        host.apply("reads", &json!({"nodes": [
            {"node_name": "echo", "identifier": "only", "inputs": {"value": 1}, "next_nodes": []},
        ]}))?;
        prints(host, &["secret", "remove", "token", "--graph", "reads"])?;
        ensure!(host.get("/secrets")?["secrets"] == json!([]));
        // A refusal repeats no value.
        let (status, refused) =
            host.refused("PUT", "/graphs/reads/secrets/token", &json!({"value": 12_345_678}))?;
        ensure!(status == 400 && !refused.to_string().contains("12345678"), "{refused}");
        let long = json!({"value": "x".repeat(65_537)});
        let (status, refused) = host.refused("PUT", "/graphs/reads/secrets/token", &long)?;
        ensure!(status == 422, "{refused}");
        Ok(())
    })
}

#[test]
fn a_push_names_graphs_and_nodes_that_it_concerns() -> Result<()> {
    on_both("pushes", &[], |host| {
        host.push("lab")?;
        host.apply("uses-lab", &words())?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("lab.wasm");
        // The same nodes in other bytes: a custom section at the end.
        let mut bytes = exosphere_tests::component("lab")?;
        bytes.extend([0, 5, 4, b'n', b'o', b't', b'e']);
        std::fs::write(&file, bytes)?;
        let file = file.to_string_lossy().into_owned();
        let pushed = prints(host, &["plugin", "push", &file])?;
        ensure!(
            pushed.contains("still use an older upload of lab") && pushed.contains("uses-lab"),
            "{pushed}"
        );
        ensure!(!pushed.contains("is also one of"), "{pushed}");
        let copied = prints(host, &["plugin", "push", &file, "--name", "labcopy"])?;
        ensure!(copied.contains("the node echo is also one of lab"), "{copied}");
        host.push("text")?;
        host.apply("uses-lab", &{
            let mut graph = words();
            graph["nodes"]
                .as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|node| node["plugin"] = json!("lab"));
            graph
        })?;
        let again = prints(host, &["plugin", "push", &file])?;
        ensure!(!again.contains("still use"), "{again}");
        Ok(())
    })
}

#[test]
fn a_lowered_limit_says_so() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let graph = json!({
        "nodes": [{"node_name": "wait", "identifier": "only", "inputs": {"ms": 10_000}, "next_nodes": [],
                   "timeout_ms": 5_000}],
        "retry_policy": {"max_retries": 0},
    });
    let host = Host::start_in(folder.path())?;
    host.push("lab")?;
    host.apply("waits", &graph)?;
    drop(host);
    // An operator lowers the limit below that of a graph that is applied.
    let host = Host::start_with(folder.path(), &["--limit", "timeout_ms=1s"], |_| ())?;
    let run = host.run("waits", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    let shown = prints(&host, &["run", "show", &run])?;
    ensure!(
        shown.contains("1 s (`timeout_ms`)") && shown.contains("it lowers the 5 s of the graph"),
        "{shown}"
    );
    ensure!(fails(&host, &["run", "list", "--limit", "100000"], 2)?.contains("1..=1000"));
    Ok(())
}

#[test]
fn internal_names_do_not_show() -> Result<()> {
    for words in [&["compil"][..], &["compile"], &["help"], &["compile", "--help"]] {
        let output = Command::new(binary()?).args(words).output()?;
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        ensure!(!shown.contains("'compile'\n\nUsage") && !shown.contains("  compile"), "{shown}");
        ensure!(!shown.contains("similar subcommand exists: 'compile'"), "{shown}");
    }
    let postgres = exosphere_tests::postgres::Postgres::shared()?;
    let url = postgres.create_database("there")?.replace("there", "not_there");
    let folder = tempfile::tempdir()?;
    let data = folder.path().to_string_lossy().into_owned();
    let message = exosphere_tests::failing_start(&["--data", &data, "--database", &url])?;
    ensure!(message.contains("does not exist") && !message.contains(" at line "), "{message}");
    Ok(())
}

#[test]
fn descriptions_keep_their_line_ends() -> Result<()> {
    let host = Host::start()?;
    let described = r#"{"nodes":[{"name":"attack","description":"First line.\nSecond line.",
        "inputs":{"type":"object"},"outputs":{"type":"object"}}]}"#;
    let changes = exosphere_tests::guest::Changes {
        description: Some(described.as_bytes()),
        ..exosphere_tests::guest::Changes::default()
    };
    good(host.upload("described", exosphere_tests::guest::component(&changes)?)?)?;
    let shown = prints(&host, &["plugin", "inspect", "described"])?;
    ensure!(shown.contains("First line.\n") && shown.contains("Second line."), "{shown}");
    ensure!(!shown.contains("\\n"), "{shown}");
    Ok(())
}

#[test]
fn a_long_log_shows_both_ends() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    let lines: Vec<String> = (0..3_000).map(|number| format!("line {number}")).collect();
    let graph = json!({"nodes": [
        {"node_name": "log", "identifier": "only", "inputs": {"lines": lines}, "next_nodes": []},
    ]});
    let found = host.result_of("logs", &graph, &json!({}))?;
    let run = found["run"].as_str().context("an id")?;
    let shown = prints(&host, &["run", "show", run, "only"])?;
    for part in ["line 0\n", "line 499\n", "2000 lines are dropped", "line 2500\n", "line 2999"] {
        ensure!(shown.contains(part), "{part} is missing in {shown}");
    }
    ensure!(!shown.contains("line 1500\n"), "{shown}");
    Ok(())
}
