//! Words of the host and of the client: stops, pushes, limits, logs, descriptions.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::guest::{Changes, component as guest_component};
use exosphere_tests::postgres::Postgres;
use exosphere_tests::{Host, binary, component, failing_start, good, problem, until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::{client, fails, prints, split_graph};

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
    ensure!(line.contains("0/1 state,"), "{line}");
    let pid = i32::try_from(watch.id())?;
    let pid = Pid::from_raw(pid).context("a process id")?;
    kill_process(pid, Signal::INT)?;
    let mut rest = String::new();
    stderr.read_to_string(&mut rest)?;
    ensure!(watch.wait()?.code() == Some(130), "{rest}");
    ensure!(
        rest.contains("the run continues") && rest.contains(&format!("run cancel {run}")),
        "{rest}"
    );
    ensure!(host.get(&format!("/runs/{run}"))?["status"] == "RUNNING");
    host.send("POST", &format!("/runs/{run}/cancel"), &json!({}))?;
    Ok(())
}

#[test]
fn a_push_names_graphs_and_nodes_that_it_concerns() -> Result<()> {
    on_both("pushes", &[], |host| {
        host.push("lab")?;
        host.apply("uses-lab", &split_graph())?;
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("lab.wasm");
        // The same nodes in other bytes: a custom section at the end.
        let mut bytes = component("lab")?;
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
            let mut graph = split_graph();
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
    let refused = fails(&host, &["run", "list", "--limit", "100001"], 2)?;
    ensure!(refused.contains("1..=100000"), "{refused}");
    Ok(())
}

#[test]
fn internal_names_do_not_show() -> Result<()> {
    for words in [&["compil"][..], &["compile"], &["help"], &["compile", "--help"]] {
        let output = Command::new(binary()?).args(words).output()?;
        let shown = [output.stdout, output.stderr].concat();
        let shown = String::from_utf8_lossy(&shown).into_owned();
        ensure!(!shown.contains("  compile"), "{shown}");
        ensure!(!shown.contains("similar subcommand exists: 'compile'"), "{shown}");
    }
    let postgres = Postgres::shared()?;
    let url = postgres.create_database("there")?.replace("there", "not_there");
    let folder = tempfile::tempdir()?;
    let data = folder.path().to_string_lossy().into_owned();
    let message = failing_start(&["--data", &data, "--database", &url])?;
    ensure!(message.contains("does not exist") && !message.contains(" at line "), "{message}");
    Ok(())
}

#[test]
fn descriptions_keep_their_line_ends() -> Result<()> {
    let host = Host::start()?;
    let described = r#"{"nodes":[{"name":"attack","description":"First line.\nSecond line.",
        "inputs":{"type":"object"},"outputs":{"type":"object"}}]}"#;
    let changes = Changes { description: Some(described.as_bytes()), ..Changes::default() };
    good(host.upload("described", guest_component(&changes)?)?)?;
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
