//! The alert rules: the cause of each is brought about on a real host, which is scraped before and
//! meanwhile, and promtool evaluates the rules on what was scraped.
//!
//! A scrape stands for 30 seconds, so that a test need not wait for as long as a rule does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use exosphere_tests::cluster::{Setup, with_cluster};
use exosphere_tests::postgres::{Mode, Postgres};
use exosphere_tests::{Host, until};
use serde_json::{Value, json};

use crate::promtool;
use crate::scrape::{Labels, Scrape};

/// Scrapes before a cause.
const BEFORE: usize = 6;

/// The samples of each series: nothing where the host had none.
type Samples = BTreeMap<(String, Labels), Vec<Option<f64>>>;

/// The scrapes of some hosts, one after the other.
#[derive(Default)]
struct History {
    samples: Samples,
    scrapes: usize,
}

impl History {
    /// Scrapes hosts, of which each is down or up. As Prometheus does, it adds the series `up`.
    fn scrape(&mut self, hosts: &[Option<&Host>]) -> Result<()> {
        for (number, host) in hosts.iter().enumerate() {
            let scrape = host.map(Scrape::of).transpose()?;
            let up = f64::from(u8::from(scrape.is_some()));
            let series = scrape.map(|scrape| scrape.series).unwrap_or_default();
            let up = (("up".to_owned(), Labels::new()), up);
            for ((name, mut labels), value) in series.into_iter().chain([up]) {
                labels.insert("job".to_owned(), "exosphere".to_owned());
                labels.insert("instance".to_owned(), format!("host{number}"));
                let samples = self.samples.entry((name, labels)).or_default();
                samples.resize(self.scrapes, None);
                samples.push(Some(value));
            }
        }
        self.scrapes += 1;
        Ok(())
    }

    fn scrape_times(&mut self, host: &Host, times: usize) -> Result<()> {
        (0..times).try_for_each(|_| self.scrape(&[Some(host)]))
    }

    /// Checks that no rule fires `before` the cause, and that these rules fire in the end.
    fn check(&self, before: usize, alerts: &[&str]) -> Result<()> {
        let rules = std::fs::read_to_string(promtool::rules())?;
        let is_used = |name: &str| rules.contains(name);
        let series: Vec<Value> = self
            .samples
            .iter()
            .filter(|((name, _), _)| is_used(name))
            .map(|((name, labels), samples)| {
                let labels: Vec<_> =
                    labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
                let mut samples = samples.clone();
                samples.resize(self.scrapes, None);
                let value = |value: &Option<f64>| value.map_or("_".into(), |it| it.to_string());
                let values: Vec<String> = samples.iter().map(value).collect();
                json!({"series": format!("{name}{{{}}}", labels.join(",")), "values": values.join(" ")})
            })
            .collect();
        let time = |scrape: usize| format!("{}s", scrape * 30);
        let firing = |selector: &str, scrape: usize, alerts: &[&str]| {
            let samples = alerts
                .iter()
                .map(|alert| json!({"labels": format!("{{alertname=\"{alert}\"}}"), "value": 1}));
            json!({
                "expr": format!("group by (alertname) (ALERTS{{alertstate=\"firing\"{selector}}})"),
                "eval_time": time(scrape),
                "exp_samples": samples.collect::<Vec<_>>(),
            })
        };
        let of = |alert: &str| format!(",alertname=\"{alert}\"");
        let mut expected = vec![firing("", before - 1, &[])];
        expected.extend(alerts.iter().map(|alert| firing(&of(alert), self.scrapes - 1, &[alert])));
        let test = json!({
            "rule_files": [promtool::text(&promtool::rules().canonicalize()?)?],
            "evaluation_interval": "30s",
            "tests": [{"interval": "30s", "input_series": series, "promql_expr_test": expected}],
        });
        let file = tempfile::NamedTempFile::with_suffix(".yml")?;
        std::fs::write(file.path(), test.to_string())?;
        promtool::run(&["test", "rules", promtool::text(file.path())?], "")
    }
}

/// Rules with the tests that try them.
const TRIED: [(&str, &[&str]); 6] = [
    (
        "an_outage_fires_its_rules",
        &[
            "ExosphereNoHostReady",
            "ExosphereDatabaseDown",
            "ExosphereCommitsFail",
            "ExosphereApiErrors",
        ],
    ),
    ("a_lost_host_fires_its_rules", &["ExosphereHostLost", "ExosphereScrapeFails"]),
    ("waiting_work_fires_its_rules", &["ExosphereWorkWaits", "ExosphereSlotsFull"]),
    ("slow_commits_fire_their_rule", &["ExosphereCommitSlow"]),
    ("failing_runs_fire_their_rule", &["ExosphereRunsFail"]),
    ("dropped_log_lines_fire_their_rule", &["ExosphereLogLinesDropped"]),
];

fn tried(test: &str) -> &'static [&'static str] {
    TRIED.iter().find(|(name, _)| *name == test).map_or(&[], |(_, rules)| rules)
}

#[test]
fn every_rule_is_tried() -> Result<()> {
    promtool::run(&["check", "rules", promtool::text(&promtool::rules())?], "")?;
    let rules = std::fs::read_to_string(promtool::rules())?;
    let names = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: "));
    let names: BTreeSet<&str> = names.collect();
    let tried: BTreeSet<&str> = TRIED.iter().flat_map(|(_, rules)| *rules).copied().collect();
    ensure!(names == tried, "rules {names:?}, tried {tried:?}");
    Ok(())
}

fn one(node: &str, inputs: &Value) -> Value {
    json!({"retry_policy": {"max_retries": 0}, "nodes": [
        {"node_name": node, "identifier": "only", "inputs": inputs, "next_nodes": []},
    ]})
}

/// Prepares a host, and scrapes it while all is well.
fn healthy(host: &Host) -> Result<History> {
    host.push("lab")?;
    host.apply("echo", &one("echo", &json!({"value": 1})))?;
    let mut history = History::default();
    for _ in 0..BEFORE {
        let run = host.run("echo", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        history.scrape_times(host, 1)?;
    }
    Ok(history)
}

#[test]
fn an_outage_fires_its_rules() -> Result<()> {
    let postgres = Postgres::start()?;
    let url = postgres.create_database("alerts")?;
    let folder = tempfile::tempdir()?;
    let host = Host::start_with(folder.path(), &["--database", &url], |_| ())?;
    let mut history = healthy(&host)?;
    postgres.stop(Mode::Immediate)?;
    let refused = || -> Result<u16> {
        let start = host.request("POST", "/graphs/echo/runs")?.json(&json!({}));
        Ok(start.send()?.status().as_u16())
    };
    for _ in 0..3 {
        let status = refused()?;
        ensure!(status == 503, "{status}");
    }
    until("failed commits", || {
        let failures = Scrape::of(&host)?.sum("exosphere_commit_failures_total", &[]);
        Ok((failures > 4.0).then_some(()))
    })?;
    history.scrape_times(&host, 7)?;
    history.check(BEFORE, tried("an_outage_fires_its_rules"))
}

#[test]
fn a_lost_host_fires_its_rules() -> Result<()> {
    with_cluster(Postgres::shared()?, "alertlost", &vec![Setup::slots(2); 2], |cluster| {
        let mut history = History::default();
        for _ in 0..BEFORE {
            history.scrape(&[Some(cluster.host(0)?), Some(cluster.host(1)?)])?;
        }
        cluster.member(1).kill()?;
        let survivor = cluster.host(0)?;
        history.scrape(&[Some(survivor), None])?;
        until("the loss", || {
            let lost = Scrape::of(survivor)?.value("exosphere_sessions_lost_total");
            Ok((lost == Some(1.0)).then_some(()))
        })?;
        for _ in 0..5 {
            history.scrape(&[Some(survivor), None])?;
        }
        history.check(BEFORE, tried("a_lost_host_fires_its_rules"))
    })
}

#[test]
fn waiting_work_fires_its_rules() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut arguments = vec!["--slots", "1", "--namespace-slots", "1"];
    arguments.extend(["--limit", "timeout_ms=600s"]);
    // Its clock is ten minutes behind, so that the next host finds the states due since then.
    let earlier = [arguments.clone(), vec!["--clock-offset-ms", "-600000"]].concat();
    let host = Host::start_with(folder.path(), &earlier, |_| ())?;
    let mut history = healthy(&host)?;
    host.apply("wait", &one("wait", &json!({"ms": 300_000, "value": 1})))?;
    for _ in 0..40 {
        host.run("wait", &json!({}), &json!({}))?;
    }
    host.kill()?;
    let host = Host::start_with(folder.path(), &arguments, |_| ())?;
    until("the wait", || {
        let scrape = Scrape::of(&host)?;
        let waits = scrape.value("exosphere_oldest_due_seconds") > Some(300.0);
        Ok((waits && scrape.value("exosphere_slots_used") == Some(1.0)).then_some(()))
    })?;
    // Longer than 15 minutes.
    history.scrape_times(&host, 32)?;
    history.check(BEFORE, tried("waiting_work_fires_its_rules"))
}

#[test]
fn slow_commits_fire_their_rule() -> Result<()> {
    let setup = Setup { proxied: true, ..Setup::slots(2) };
    with_cluster(Postgres::shared()?, "alertslow", &[setup], |cluster| {
        let host = cluster.host(0)?;
        let mut history = healthy(host)?;
        cluster.members()[0].proxy()?.delay(Duration::from_millis(80));
        // Longer than the time of the rule, five minutes.
        for _ in 0..12 {
            host.run("echo", &json!({}), &json!({}))?;
            history.scrape_times(host, 1)?;
        }
        cluster.members()[0].proxy()?.clear();
        history.check(BEFORE, tried("slow_commits_fire_their_rule"))
    })
}

#[test]
fn failing_runs_fire_their_rule() -> Result<()> {
    let host = Host::start()?;
    let mut history = healthy(&host)?;
    host.apply("fail", &one("fail_when", &json!({"value": 1, "equals": 1})))?;
    for _ in 0..8 {
        let run = host.run("fail", &json!({}), &json!({}))?;
        host.wait_for(&run)?;
        history.scrape_times(&host, 1)?;
    }
    history.check(BEFORE, tried("failing_runs_fire_their_rule"))
}

#[test]
fn dropped_log_lines_fire_their_rule() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let full = File::options().write(true).open("/dev/full")?;
    let set_up = |command: &mut Command| {
        command.env("EXOSPHERE_LOG", "debug").stderr(full);
    };
    let host = Host::start_with(folder.path(), &[], set_up)?;
    let mut history = History::default();
    history.scrape_times(&host, 1)?;
    host.push("lab")?;
    host.apply("echo", &one("echo", &json!({"value": 1})))?;
    let run = host.run("echo", &json!({}), &json!({}))?;
    host.wait_for(&run)?;
    until("dropped lines", || {
        history.scrape_times(&host, 1)?;
        let first = history.samples.iter().find(|((name, _), _)| name.contains("lines_dropped"));
        let grew = first.is_some_and(|(_, samples)| samples.last() > samples.first());
        Ok(grew.then_some(()))
    })?;
    history.scrape_times(&host, 1)?;
    history.check(1, tried("dropped_log_lines_fire_their_rule"))
}
