//! Names of runs, states, graphs and namespaces, and refusals that suggest.

use anyhow::{Context, Result, ensure};
use exosphere_tests::both_databases::on_both;
use exosphere_tests::{Host, path_of};
use serde_json::{Value, json};

use crate::{fails, prints, run_words};

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
        // Another run may be the latest one when the next command is given.
        for name in ["latest", &run[..20]] {
            let page = prints(host, &["run", "states", name, "--limit", "2"])?;
            ensure!(page.contains(&format!("run states {run} --limit 2 --after ")), "{page}");
        }
        let missing = fails(host, &["run", "show", &run, "split.count[9]"], 1)?;
        ensure!(missing.contains("exosphere run states"), "{missing}");
        Ok(())
    })
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
        for list in [
            &["grant", "list", "--namespace", "defualt"][..],
            &["grant", "show", "lab", "--namespace", "defualt"],
            &["quota", "show", "--namespace", "defualt"],
            &["namespace", "show", "--namespace", "defualt"],
            &["secret", "list", "--graph", "words", "--namespace", "defualt"],
            &["audit", "list", "--in", "defualt"],
        ] {
            let refused = fails(host, list, 1)?;
            ensure!(refused.contains("did you mean default?"), "{list:?}: {refused}");
        }
        let refused = fails(host, &["secret", "list", "--graph", "wrods"], 1)?;
        ensure!(refused.contains("did you mean words?"), "{refused}");
        prints(host, &["secret", "list", "--graph", "words"])?;
        let refused = fails(host, &["run", "show", &run, "count[3]"], 1)?;
        ensure!(refused.contains("did you mean split.count[3]?"), "{refused}");
        for (words, meant) in [
            (["quota", "set", "grpahs=1"], "graphs"),
            (["quota", "set", "--unset=plugin"], "plugins"),
            (["namespace", "set", "--limit=cpu_mss=1s"], "cpu_ms"),
            (["namespace", "set", "--unset=output"], "outputs"),
        ] {
            let refused = fails(host, &words, 2)?;
            ensure!(refused.contains(&format!("did you mean \"{meant}\"?")), "{refused}");
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
