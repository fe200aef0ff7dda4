//! What `cargo xtask bench` runs: a few loads on the real host, and beside them
//! what the disk can do, so that each figure is also a ratio. Medians of five
//! rounds, interleaved, printed as a table.
//!
//! Not here: a verdict. docs/performance.md says what the figures mean.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use exosphere_tests::{Host, component, good};
use serde_json::{Value, json};

/// Rounds of each load.
const ROUNDS: usize = 5;
/// Branches of the fanout.
const BRANCHES: i64 = 10_000;
/// Nodes of the chain.
const CHAIN: i64 = 200;
/// One-state runs, one after the other, in each round.
const SINGLES: usize = 100;
/// How long the idle host is watched.
const IDLE: Duration = Duration::from_secs(10);

fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let host = Host::start_in(folder.path())?;
    prepare(&host)?;
    let mut rounds = Rounds::default();
    // The first round warms up and is not counted.
    round(&host, folder.path(), &mut Rounds::default())?;
    for _ in 0..ROUNDS {
        round(&host, folder.path(), &mut rounds)?;
    }
    rounds.print();
    idle(&host)
}

/// Ten plugins, and the graphs of the loads.
fn prepare(host: &Host) -> Result<()> {
    host.push("lab")?;
    for copy in 0..9u8 {
        // A custom section makes other bytes of the same plugin.
        let mut bytes = component("tally")?;
        bytes.extend([0, 3, 1, b'n', copy]);
        good(host.upload(&format!("copy{copy}"), bytes)?)?;
    }
    host.apply("fanout", &json!({"nodes": [
        {"node_name": "fan", "identifier": "splitter", "inputs": {"n": BRANCHES}, "next_nodes": ["worker"]},
        {"node_name": "echo", "identifier": "worker", "inputs": {"value": "${{ splitter.outputs.i }}"}, "next_nodes": ["merger"]},
        {"node_name": "sum", "identifier": "merger", "inputs": {"values": "${{ worker.outputs.value }}"},
         "unites": {"identifier": "splitter"}, "next_nodes": []},
    ]}))?;
    let link = |at: i64| {
        let value = match at {
            0 => json!(0),
            _ => json!(format!("${{{{ n{}.outputs.value }}}}", at - 1)),
        };
        let next = if at + 1 < CHAIN { json!([format!("n{}", at + 1)]) } else { json!([]) };
        json!({"node_name": "echo", "identifier": format!("n{at}"), "inputs": {"value": value}, "next_nodes": next})
    };
    let chain: Vec<Value> = (0..CHAIN).map(link).collect();
    host.apply("chain", &json!({ "nodes": chain }))?;
    let mut only = link(0);
    only["next_nodes"] = json!([]);
    host.apply("single", &json!({ "nodes": [only] }))?;
    Ok(())
}

/// All figures, by name.
#[derive(Default)]
struct Rounds(Vec<(&'static str, &'static str, Vec<f64>)>);

impl Rounds {
    fn add(&mut self, name: &'static str, unit: &'static str, figure: f64) {
        match self.0.iter_mut().find(|(known, ..)| *known == name) {
            Some((.., figures)) => figures.push(figure),
            None => self.0.push((name, unit, vec![figure])),
        }
    }

    fn print(&mut self) {
        println!("| figure | unit | median | least | most |");
        println!("|---|---|---|---|---|");
        for (name, unit, figures) in &mut self.0 {
            figures.sort_by(f64::total_cmp);
            let (least, most) = (figures[0], figures[figures.len() - 1]);
            println!(
                "| {name} | {unit} | {:.2} | {least:.2} | {most:.2} |",
                figures[figures.len() / 2]
            );
        }
    }
}

fn round(host: &Host, folder: &Path, rounds: &mut Rounds) -> Result<()> {
    let sync = fsync(folder)?;
    rounds.add("fsync of 4 KiB, p50", "ms", sync);

    let states = (BRANCHES + 2) as f64;
    let took = duration(&complete(host, "fanout")?);
    rounds.add("fanout of 10,000 and unite", "states/s", states / took * 1000.0);

    let took = duration(&complete(host, "chain")?);
    rounds.add("chain of 200, each state", "ms", took / CHAIN as f64);

    let mut singles = Vec::with_capacity(SINGLES);
    for _ in 0..SINGLES {
        let begun = Instant::now();
        complete(host, "single")?;
        singles.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    singles.sort_by(f64::total_cmp);
    let middle = singles[SINGLES / 2];
    rounds.add("one-state run over HTTP, start to result, p50", "ms", middle);
    rounds.add("one-state run over HTTP, p50 above two fsyncs", "ms", middle - 2.0 * sync);
    rounds.add("one-state run over HTTP, p99", "ms", singles[SINGLES * 99 / 100]);
    Ok(())
}

/// Starts a run and waits for its end by event.
fn complete(host: &Host, graph: &str) -> Result<Value> {
    let run = host.run(graph, &json!({}), &json!({}))?;
    let ended = host.wait_for(&run)?;
    ensure!(ended["status"] == "SUCCESS", "{ended:#}");
    Ok(ended)
}

/// How long a run took, in milliseconds, by the host's clock.
fn duration(run: &Value) -> f64 {
    let at = |key: &str| run[key].as_f64().unwrap_or_default();
    (at("ended_at") - at("created_at")).max(1.0)
}

/// The median of 200 writes of a page, each synced, in milliseconds.
fn fsync(folder: &Path) -> Result<f64> {
    let file = File::create(folder.join("fsync"))?;
    (&file).write_all(&[0; 4096])?;
    file.sync_all()?;
    let mut all = Vec::with_capacity(200);
    for turn in 0..200u8 {
        let begun = Instant::now();
        file.write_all_at(&[turn; 4096], 0)?;
        file.sync_data()?;
        all.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    all.sort_by(f64::total_cmp);
    Ok(all[100])
}

/// What a host costs that has nothing to do.
fn idle(host: &Host) -> Result<()> {
    let before = processor(host.pid())?;
    std::thread::sleep(IDLE);
    let used = (processor(host.pid())? - before) / IDLE.as_secs_f64() * 100.0;
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.pid()))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS")).context("no VmRSS")?;
    let resident: f64 = line.split_whitespace().nth(1).context("no VmRSS")?.parse()?;
    println!("| idle host with ten plugins, after the loads | % of a core | {used:.2} | | |");
    println!(
        "| idle host with ten plugins, after the loads | MB resident | {:.0} | | |",
        resident / 1024.0
    );
    Ok(())
}

/// Seconds that a process has spent on a processor.
fn processor(process: u32) -> Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
    let rest = stat.rsplit_once(')').context("no name in stat")?.1;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
    // Fields 14 and 15 of proc(5), in clock ticks of 10 ms.
    let (user, system) = (ticks(11).context("stat")?, ticks(12).context("stat")?);
    Ok((user + system) / 100.0)
}
