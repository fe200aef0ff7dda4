//! Inputs, graphs and secrets from files, pipes and the environment.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, binary};
use serde_json::{Value, json};

use crate::{fails, prints, with_input};

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

    host.apply("text", &json!({"nodes": [
        {"node_name": "split", "identifier": "only", "inputs": {"text": "one two", "chunks": 1}, "next_nodes": []},
    ]}))?;
    let refused = fails(&host, &["run", "start", "text", "--input", "text=12345"], 1)?;
    ensure!(refused.contains(r#"--input 'text="12345"'"#), "{refused}");
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
    command.args(["run", "list", "--host", address]).env("EXOSPHERE_KEY", host.key());
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
fn standard_input_is_named_in_refusals() -> Result<()> {
    let host = Host::start()?;
    host.push("lab")?;
    host.apply("words", &crate::split_graph())?;
    for (words, input, message) in [
        (
            &["run", "start", "words", "--inputs", "-"][..],
            "[1]",
            "the inputs must be a JSON object",
        ),
        (&["run", "start", "words", "--inputs", "-"], "{", "line 1"),
        (
            &["secret", "set", "s", "--graph", "words", "--from-file", "-"],
            "\n",
            "the value is empty",
        ),
        (&["graph", "apply", "-", "--name", "g"], "{}", "nodes"),
    ] {
        let output = with_input(&host, words, input)?;
        let said = String::from_utf8(output.stderr)?;
        ensure!(output.status.code() == Some(1), "{words:?}: {said}");
        ensure!(said.contains("standard input: ") && said.contains(message), "{words:?}: {said}");
    }
    ensure!(prints(&host, &["secret", "list"])?.trim_end().lines().count() == 1, "none was set");
    Ok(())
}
