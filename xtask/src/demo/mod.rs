//! `cargo xtask demo`: counts the words of a text, from source to result.
//!
//! The graph is `xtask/demo/words.json`. Each chunk of the text is counted in a branch
//! of its own. On its way to the unite, each branch passes three nodes: one fails at
//! first, one prunes, and one waits for the other branches. The result is compared with
//! a plain count of the same text.

mod cli;
mod host;
mod text;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::build;
use crate::clock::Clock;
use crate::project::Project;

use cli::Cli;
use host::Host;
use text::{Text, Word};

/// The plugins of the graph.
const PLUGINS: [&str; 5] = ["text", "flaky", "gate", "poller", "tally"];
/// The number of words shown; the graph has the same number.
const MAX_SHOWN_WORDS: usize = 10;

/// Runs the demo on a file.
pub fn run(project: &Project, file: Option<PathBuf>) -> Result<()> {
    let text = Text::read(file.unwrap_or_else(|| project.at("ARCHITECTURE.md")))?;
    let mut clock = Clock::default();
    let components = clock.step("plugins compiled", || build::plugins(project, &PLUGINS))?;
    let exosphere = clock.step("host compiled", || build::host(project))?;
    let folder = tempfile::tempdir().context("no temporary folder")?;
    let host = clock.step("host started", || Host::start(&exosphere, folder.path()))?;
    let cli = Cli::new(&exosphere, &host.data, &host.url);
    let end = count_words(project, &cli, &components, &text, &mut clock);
    let end = end.map_err(|error| error.context(host.error_with_log("the demo failed")));
    // Stopped in any case, even if the run failed.
    let stopped = clock.step("host stopped", || host.stop());
    let (result, run) = end?;
    stopped?;
    println!("\n{}", report(&text, &result, &run)?);
    Ok(())
}

/// Runs the graph; returns the output of the unite node, and the run after its end.
fn count_words(
    project: &Project,
    cli: &Cli,
    components: &[PathBuf],
    text: &Text,
    clock: &mut Clock,
) -> Result<(Value, Value)> {
    clock.step("plugins pushed", || {
        for name in PLUGINS {
            let component = components.iter().find(|path| is_plugin(path, name));
            let component = component.with_context(|| format!("there is no plugin {name}"))?;
            cli.json(
                &["plugin", "push"],
                &[component.as_os_str(), "--name".as_ref(), name.as_ref()],
            )?;
        }
        Ok(())
    })?;
    let graph = project.at("xtask/demo/words.json");
    clock.step("graph applied", || cli.json(&["graph", "apply"], &[graph.as_os_str()]))?;
    let input = text.as_input();
    let run = clock.step("run ended", || {
        cli.json(&["run", "start", "words", "--watch", "--input"], &[&input])
    })?;
    let id = run["run"].as_str().context("the run has no id")?;
    let found = cli.json(&["run", "states", id, "--identifier", "merge"], &[])?;
    let state = found["states"][0]["state"].as_str().context("nothing was merged")?;
    let merged = cli.json(&["run", "show", state], &[])?;
    let result = merged["outputs"][0].clone();
    text.compare(&words(&result)?)?;
    Ok((result, run))
}

fn is_plugin(path: &Path, name: &str) -> bool {
    path.file_stem().is_some_and(|stem| stem == name)
}

/// Returns the words of a merged result.
fn words(result: &Value) -> Result<Vec<Word>> {
    let words = result["top"].as_array().context("the result has no words")?;
    let word = |word: &Value| Some((word["word"].as_str()?.to_owned(), word["count"].as_u64()?));
    words.iter().map(word).collect::<Option<_>>().context("the result has other words")
}

/// Formats the words, the store and the counts of the run.
fn report(text: &Text, result: &Value, run: &Value) -> Result<String> {
    let mut lines = vec![format!("The most frequent words of {text}:")];
    lines.extend(words(result)?.iter().map(|(word, count)| format!("{count:>10}  {word}")));

    let store = run["store"].as_object().context("the run has not kept its store")?;
    lines.push("\nWhat the run's store held at the end:".to_owned());
    for (key, value) in store {
        lines.push(format!("{:>10}  {key}", value.as_str().unwrap_or_default()));
    }
    ensure!(
        store.get("words").and_then(Value::as_str) == Some(&result["words"].to_string()),
        "the store and the result differ in the number of words"
    );

    let counts = &run["counts"];
    let millis = run["ended_at"].as_u64().zip(run["created_at"].as_u64());
    let Some((ended, created)) = millis else { bail!("the run has no times") };
    let seconds = Duration::from_millis(ended.saturating_sub(created)).as_secs_f64();
    let heads = ["branches", "states", "retries", "pruned", "requeues", "seconds"];
    let cells = [
        store.get("chunks").and_then(Value::as_str).unwrap_or_default().to_owned(),
        counts["states"].to_string(),
        counts["retries"].to_string(),
        counts["pruned"].to_string(),
        counts["requeues"].to_string(),
        format!("{seconds:.2}"),
    ];
    lines.push(String::new());
    lines.push(heads.map(|head| format!("{head:>10}")).concat());
    lines.push(cells.map(|cell| format!("{cell:>10}")).concat());
    Ok(lines.join("\n"))
}
