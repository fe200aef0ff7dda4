//! The documents: the reference lists exactly the metrics that a host serves, and the dashboard,
//! the rules and the guide name no other.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use exosphere_tests::{Host, checkout};
use serde_json::{Value, json};

use crate::promtool;
use crate::scrape::Scrape;

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(checkout().join(path)).with_context(|| path.to_owned())
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> BTreeSet<&str> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("exosphere_") || word.starts_with("process_")).collect()
}

/// Words that look like metrics and are none.
const OTHER_WORDS: [&str; 2] = ["exosphere_data", "exosphere_key"];

/// Returns the metrics of a host on which every kind of series has occurred.
fn scrape() -> Result<Scrape> {
    let host = Host::start()?;
    host.push("lab")?;
    let inputs = json!({"i": 0, "key": "n", "turns": ["fail"]});
    let node =
        json!({"node_name": "chore", "identifier": "only", "inputs": inputs, "next_nodes": []});
    let policy = json!({"max_retries": 1, "strategy": "FIXED", "backoff_factor": 1});
    host.apply("fail", &json!({"nodes": [node], "retry_policy": policy}))?;
    let run = host.run("fail", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    exosphere_tests::until("the figures of the database", || {
        let scrape = Scrape::of(&host)?;
        let is_whole = scrape.value("exosphere_db_bytes").is_some()
            && scrape.sum("exosphere_http_requests_total", &[("route", "/metrics")]) > 0.0;
        Ok(is_whole.then_some(scrape))
    })
}

/// Returns the row of a family in the reference.
fn row(scrape: &Scrape, name: &str) -> String {
    let family = &scrape.families[name];
    let mut labels = BTreeSet::new();
    for (of, with) in scrape.series.keys() {
        if scrape.family_of(of) == Some(name) {
            labels.extend(with.keys().filter(|label| *label != "le").map(|it| format!("`{it}`")));
        }
    }
    let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
    format!("| `{name}` | {} | {labels} | {} |", family.metric_type, family.help)
}

#[test]
fn the_reference_lists_every_metric() -> Result<()> {
    let scrape = scrape()?;
    promtool::run(&["check", "metrics"], &scrape.text)?;
    let page = read("docs/reference/metrics.md")?;
    let expected: BTreeSet<String> =
        scrape.families.keys().map(|name| row(&scrape, name)).collect();
    let found: BTreeSet<String> =
        page.lines().filter(|line| line.starts_with("| `")).map(str::to_owned).collect();
    let missing: Vec<_> = expected.difference(&found).cloned().collect();
    let others: Vec<_> = found.difference(&expected).cloned().collect();
    ensure!(
        missing.is_empty() && others.is_empty(),
        "docs/reference/metrics.md lacks:\n{}\nand has:\n{}",
        missing.join("\n"),
        others.join("\n")
    );
    Ok(())
}

#[test]
fn documents_name_only_existing_metrics() -> Result<()> {
    let scrape = scrape()?;
    let paths =
        ["docs/operations/grafana.json", "docs/operations/alerts.yml", "docs/guides/monitoring.md"];
    for path in paths {
        let text = read(path)?;
        let unknown: Vec<_> = names(&text)
            .into_iter()
            .filter(|name| !OTHER_WORDS.contains(name) && scrape.family_of(name).is_none())
            .collect();
        ensure!(unknown.is_empty(), "{path} names {unknown:?}");
    }
    Ok(())
}

#[test]
fn the_dashboard_shows_every_metric() -> Result<()> {
    let scrape = scrape()?;
    let text = read("docs/operations/grafana.json")?;
    let dashboard: Value = serde_json::from_str(&text)?;
    ensure!(dashboard["panels"].as_array().is_some_and(|panels| panels.len() > 20));
    let shown: BTreeSet<_> =
        names(&text).into_iter().filter_map(|name| scrape.family_of(name)).collect();
    let hidden: Vec<_> =
        scrape.families.keys().filter(|name| !shown.contains(name.as_str())).collect();
    ensure!(hidden.is_empty(), "the dashboard shows nothing of {hidden:?}");
    Ok(())
}

#[test]
fn the_guide_explains_every_alert() -> Result<()> {
    let (rules, guide) = (read("docs/operations/alerts.yml")?, read("docs/guides/monitoring.md")?);
    for name in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        ensure!(guide.contains(&format!("| `{name}` |")), "docs/guides/monitoring.md lacks {name}");
    }
    Ok(())
}
